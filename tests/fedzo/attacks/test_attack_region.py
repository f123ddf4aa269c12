"""The region: projections against scipy, what is promised of linear functions, and the levels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from fedzo.attacks.names import NORMS
from fedzo.attacks.region import (
    Norm,
    Region,
    check_radius,
    region_around,
)
from fedzo.errors import ConfigError
from fedzo.randomness import stream

SHAPE = (2, 3, 4)
RADII: dict[Norm, float] = {"linf": 0.3, "l2": 0.8, "l0": 4, "patch": 2}
SEEDS = st.integers(0, 10**6)
SCALES = st.sampled_from([0.0, 1e-3, 0.3, 1.0, 50.0])


def image(seed: int, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    """Return an image with some pixels at the ends of the range."""
    drawn = stream(seed, "image").uniform(-0.3, 1.3, (1, *shape))
    return torch.from_numpy(drawn).float().clamp(0, 1)


def region(norm: Norm, seed: int) -> Region:
    return region_around(image(seed), norm, RADII[norm])


def normals(seed: int, *shape: int, key: str = "normals") -> torch.Tensor:
    return torch.from_numpy(stream(seed, key).standard_normal(shape)).float()


def sparse(seed: int, region: Region) -> torch.Tensor:
    """Return a wild vector, a third of whose values are zero."""
    v = normals(seed, region.dim, key="wild")
    return torch.where(normals(seed, region.dim, key="zeros") > 0.5, torch.zeros_like(v), v)


def feasible(region: Region, seed: int, count: int) -> list[torch.Tensor]:
    wild = normals(seed, count, region.dim, key="feasible")
    return [region.project(3 * RADII[region.norm] * row) for row in wild]


@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS, scale=SCALES)
def test_projections_are_inside_and_idempotent(norm: Norm, seed: int, scale: float) -> None:
    ball = region(norm, seed)
    delta = scale * sparse(seed, ball)
    projected = ball.project(delta)
    assert ball.contains(projected)
    assert ball.size(projected) <= ball.radius + 1e-6
    assert bool(((projected >= ball.lower) & (projected <= ball.upper)).all())
    torch.testing.assert_close(ball.project(projected), projected, rtol=0, atol=1e-6)
    if ball.contains(delta):
        torch.testing.assert_close(projected, delta, rtol=0, atol=2e-6)


@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS, scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_nothing_allowed_is_nearer_than_the_projection(norm: Norm, seed: int, scale: float) -> None:
    ball = region(norm, seed)
    delta = scale * sparse(seed, ball)
    least = float((ball.project(delta) - delta).norm())
    for other in feasible(ball, seed, 60):
        assert float((other - delta).norm()) >= least - 1e-4 * max(1.0, least)


@given(seed=SEEDS, scale=st.sampled_from([0.3, 1.0, 5.0]))
def test_the_l2_projection_is_that_of_scipy(seed: int, scale: float) -> None:
    ball = region_around(image(seed, (1, 2, 3)), "l2", 0.5)
    delta = scale * normals(seed, 6)
    wanted = delta.double().numpy()
    found = minimize(
        lambda x: np.sum((x - wanted) ** 2),
        np.zeros(6),
        jac=lambda x: 2 * (x - wanted),
        bounds=list(zip(ball.lower.tolist(), ball.upper.tolist(), strict=True)),
        constraints={"type": "ineq", "fun": lambda x: 0.25 - x @ x, "jac": lambda x: -2 * x},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    np.testing.assert_allclose(ball.project(delta).numpy(), found.x, atol=1e-3)


@pytest.mark.parametrize("norm", ["l0", "patch"])
@given(seed=SEEDS)
def test_projections_onto_pixels_are_the_best_of_all_choices(norm: Norm, seed: int) -> None:
    shape = (2, 2, 3)
    ball = region_around(image(seed, shape), norm, 1)
    delta = normals(seed, 12)
    clipped = delta.clamp(ball.lower, ball.upper).reshape(shape)
    choices = []
    for place in range(6):
        alone = torch.zeros(shape)
        alone[:, place // 3, place % 3] = clipped[:, place // 3, place % 3]
        choices.append(alone.reshape(-1))
    distances = [float((choice - delta).norm()) for choice in choices]
    assert float((ball.project(delta) - delta).norm()) == pytest.approx(min(distances), abs=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS, scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_toward_is_inside_and_beats_all_others(norm: Norm, seed: int, scale: float) -> None:
    ball = region(norm, seed)
    gradient = scale * sparse(seed, ball)
    target = ball.toward(gradient)
    assert ball.contains(target)
    best = float(gradient @ target)
    for other in feasible(ball, seed, 100):
        assert best <= float(gradient @ other) + 1e-4 * scale


@pytest.mark.parametrize("small", [1e-3, 1e-6, 1e-8])
def test_toward_uses_small_slopes_where_the_large_ones_are_at_the_end(small: float) -> None:
    """The first value cannot go down, so the whole ball is for the second."""
    ball = Region("l2", 0.5, torch.tensor([0.0, -1.0]), torch.tensor([1.0, 0.0]), (1, 1, 2))
    target = ball.toward(torch.tensor([1.0, small]))
    torch.testing.assert_close(target, torch.tensor([0.0, -0.5]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS, share=st.sampled_from([0.01, 0.2, 0.5, 0.7, 1.0]))
def test_part_way_is_inside(norm: Norm, seed: int, share: float) -> None:
    ball = region(norm, seed)
    gradient = sparse(seed, ball)
    start = ball.toward(normals(seed, ball.dim, key="start"))
    assert ball.contains(ball.part_way(start, gradient, share))
    assert torch.equal(ball.part_way(start, gradient, 1.0), ball.toward(gradient))
    if norm in ("linf", "l0", "patch"):
        assert float(gradient @ (ball.part_way(start, gradient, share) - start)) <= 1e-5


@given(seed=SEEDS, share=st.sampled_from([0.05, 0.3, 0.8]))
def test_part_way_in_linf_changes_the_share_that_promises_most(seed: int, share: float) -> None:
    ball = region("linf", seed)
    gradient, start = normals(seed, ball.dim), ball.toward(normals(seed, ball.dim, key="start"))
    target = ball.toward(gradient)
    step = ball.part_way(start, gradient, share)
    changed = step != start
    assert int(changed.sum()) == max(1, round(share * int((target != start).sum())))
    promise = (start - target) * gradient
    assert float(promise[changed].min()) >= float(promise[~changed].max()) - 1e-6


def test_sizes_by_hand() -> None:
    delta = torch.zeros(1, 4, 5)
    delta[0, 1, 1], delta[0, 1, 3] = 0.3, -0.4
    for norm, size in (("linf", 0.4), ("l2", 0.5), ("l0", 2.0), ("patch", 3.0)):
        ball = region_around(torch.full((1, 1, 4, 5), 0.5), norm, 1)
        assert ball.size(delta.reshape(-1)) == pytest.approx(size)
        assert ball.size(torch.zeros(20)) == 0
    colors = torch.zeros(3, 2, 2)
    colors[:, 0, 0] = 0.1
    assert region_around(torch.full((1, 3, 2, 2), 0.5), "l0", 1).size(colors.reshape(-1)) == 1


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_too_large_or_out_of_the_box_is_not_contained(norm: Norm) -> None:
    ball = region_around(torch.full((1, *SHAPE), 0.5), norm, RADII[norm])
    assert ball.contains(torch.zeros(ball.dim))
    out = torch.zeros(ball.dim)
    out[0] = 0.6
    assert not ball.contains(out)
    assert not ball.contains(torch.full((ball.dim,), 0.4))
    assert not ball.contains(torch.full((ball.dim,), torch.nan))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), float("-inf")])
def test_radii_of_no_norm(norm: Norm, radius: float) -> None:
    with pytest.raises(ConfigError, match="radius"):
        check_radius(norm, radius, SHAPE)


def test_an_endless_ball_is_refused_where_it_cannot_be_searched() -> None:
    """Without the check, toward of an l2 ball of radius inf never ends."""
    for norm in ("l2", "l0", "patch"):
        with pytest.raises(ConfigError, match="radius"):
            check_radius(norm, float("inf"), SHAPE)


@pytest.mark.parametrize(("norm", "radius"), [("l0", 13), ("l0", 1.5), ("patch", 4), ("l0", 0.5)])
def test_radii_of_pixels_are_whole_and_fit(norm: Norm, radius: float) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        region_around(image(0), norm, radius)
    for fits in ("l0", 12), ("patch", 3):
        check_radius(*fits, SHAPE)


def test_several_images_share_a_region() -> None:
    ball = region_around(torch.rand(3, *SHAPE, generator=torch.Generator()), "linf", 0.1)
    assert ball.lower.unique().tolist() == [-1.0]
    assert ball.upper.unique().tolist() == [1.0]


@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS, levels=st.sampled_from([1, 10, 255, 1000]))
def test_levels_keep_the_grid_and_the_ball(norm: Norm, seed: int, levels: int) -> None:
    picture = (image(seed) * levels).round() / levels
    ball = region_around(picture, norm, RADII[norm])
    delta = ball.toward(sparse(seed, ball))
    [rounded] = ball.on_steps(delta.unsqueeze(0), levels)
    assert ball.contains(rounded)
    assert float((rounded - delta).abs().max()) < 1 / levels + 1e-6
    steps = (picture.reshape(-1) + rounded) * levels
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("levels", [15, 31, 255])
def test_whole_steps_stay_as_they_are(levels: int) -> None:
    """Between white, black and any value on the grid no step is lost."""
    picture = torch.arange(levels + 1).float() / levels
    ball = region_around(picture.reshape(1, 1, 1, -1), "linf", 1.0)
    for delta in (picture, -picture, 1 - picture, picture - 1, picture - picture[levels // 2]):
        wanted = (delta * levels).round()
        [rounded] = ball.on_steps(delta.unsqueeze(0), levels)
        torch.testing.assert_close(rounded * levels, wanted, rtol=0, atol=1e-2)


@given(seed=SEEDS, share=st.floats(0.5, 3.0))
def test_rounding_leaves_most_of_a_dense_change(seed: int, share: float) -> None:
    """Values of a step or so stay near the sphere, where rounding toward none left half of it."""
    picture = (image(seed) * 255).round() / 255
    ball = region_around(picture, "l2", share * math.sqrt(picture.numel()) / 255)
    delta = ball.toward(sparse(seed, ball) + 1e-3)
    [rounded] = ball.on_steps(delta.unsqueeze(0), 255)
    assert ball.contains(rounded)
    assert float((rounded - delta).abs().max()) < 1 / 255 + 1e-6
    assert float(rounded.norm()) > 0.8 * float(delta.norm()), "of 24 values"


def test_what_leaves_the_ball_is_rounded_down_where_it_was_rounded_up_most() -> None:
    ball = Region("l2", 3.0, torch.full((4,), -9.0), torch.full((4,), 9.0), (1, 2, 2))
    [rounded] = ball.on_steps(torch.tensor([[1.5001, -1.6, 1.9, 0.3]]), 1)
    assert rounded.tolist() == [1.0, -2.0, 2.0, 0.0]
    [outside] = ball.on_steps(torch.tensor([[3.0, 2.6, 0.0, 0.0]]), 1)
    assert outside.tolist() == [3.0, 3.0, 0.0, 0.0]
