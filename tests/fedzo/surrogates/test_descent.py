"""Virtual steps: their length, the box, the halving, and that they go downhill."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedzo.randomness import stream
from fedzo.surrogates.descent import StepRule, virtual_steps
from fedzo.surrogates.slope_geometry import centered
from fedzo.surrogates.slope_posterior import SlopePosterior, condition
from fedzo.surrogates.slopes import SlopePrior, rows_between

D, N = 4, 3
HESSIAN = torch.diag(torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)) + 0.1
OPTIMUM = torch.tensor([0.4, -0.3, 0.2, 0.1], dtype=torch.float64)
FREE = {"lower": -torch.inf, "upper": torch.inf}
RULES: list[StepRule] = ["normalized", "sign"]
every_rule = pytest.mark.parametrize("rule", RULES)
STOPS = st.sets(st.integers(1, 12), min_size=1, max_size=5).map(sorted)


def normals(*shape: int, key: str, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(stream(seed, key).standard_normal(shape))


def quadratic(x: torch.Tensor) -> torch.Tensor:
    z = x - OPTIMUM
    return ((z @ HESSIAN) * z).sum(-1) / 2


def surrogate(x: torch.Tensor, seed: int = 0, bowl: bool = True) -> SlopePosterior:
    """Return a surrogate of the quadratic, or of a plane, from 24 slopes around x."""
    a, b = x + normals(2, 24, D, key="points", seed=seed)
    ids = torch.arange(24)
    change = quadratic(b) - quadratic(a) if bowl else (b - a) @ normals(D, key="plane")
    rows = rows_between(a, b, change, owners=torch.arange(N).expand(24, N), start=ids, end=ids + 24)
    return condition(
        SlopePrior(kernel="squared_exponential", lengthscale=4.0), centered(rows, x), N
    )


@every_rule
@settings(max_examples=40)
@given(stops=STOPS, seed=st.integers(0, 100), eta=st.floats(0.01, 3))
def test_every_stop_is_a_point_inside_the_box(
    rule: StepRule, stops: list[int], seed: int, eta: float
) -> None:
    lower = torch.tensor([-0.5, -1.0, -0.2, -0.1], dtype=torch.float64)
    x = torch.zeros(D, dtype=torch.float64)
    points = virtual_steps(
        surrogate(x, seed).gradient, x, eta, rule=rule, stops=stops, lower=lower, upper=0.3
    )
    assert points.shape == (len(stops), D)
    assert (points >= lower).all()
    assert (points <= 0.3).all()


@every_rule
def test_a_stop_is_the_same_point_of_any_walk(rule: StepRule) -> None:
    x = normals(D, key="x")
    posterior = surrogate(x)
    whole = virtual_steps(posterior.gradient, x, 0.3, rule=rule, stops=range(1, 10), **FREE)
    some = virtual_steps(posterior.gradient, x, 0.3, rule=rule, stops=[2, 3, 9], **FREE)
    assert torch.equal(some, whole[[1, 2, 8]])


@given(eta=st.floats(1e-3, 1), seed=st.integers(0, 100))
def test_the_first_normalized_step_has_length_eta_along_the_gradient(eta: float, seed: int) -> None:
    x = normals(D, key="x", seed=seed)
    posterior = surrogate(x, seed)
    [z] = virtual_steps(posterior.gradient, x, eta, rule="normalized", stops=[1], **FREE)
    step, [g] = z - x, posterior.gradient(x.unsqueeze(0))
    assert float(step.square().mean().sqrt()) == pytest.approx(eta, rel=1e-9)
    assert float(step @ g) == pytest.approx(-float(step.norm() * g.norm()), rel=1e-9)


@given(eta=st.floats(1e-3, 1), seed=st.integers(0, 100))
def test_a_sign_step_moves_each_coordinate_by_eta_against_the_gradient(
    eta: float, seed: int
) -> None:
    x = normals(D, key="x", seed=seed)
    posterior = surrogate(x, seed)
    [z] = virtual_steps(posterior.gradient, x, eta, rule="sign", stops=[1], **FREE)
    step, [g] = z - x, posterior.gradient(x.unsqueeze(0))
    assert torch.allclose(step.abs(), torch.full_like(step, eta), rtol=1e-9)
    assert (step * g < 0).all()


@every_rule
def test_steps_keep_their_length_while_the_gradient_keeps_its_side(rule: StepRule) -> None:
    x = torch.zeros(D, dtype=torch.float64)
    posterior = surrogate(x, bowl=False)
    points = virtual_steps(posterior.gradient, x, 0.05, rule=rule, stops=range(1, 7), **FREE)
    steps = torch.cat([x.unsqueeze(0), points]).diff(dim=0)
    lengths = steps.square().mean(1).sqrt()
    assert torch.allclose(lengths, torch.full_like(lengths, 0.05), rtol=1e-9)


@every_rule
def test_a_step_is_half_as_long_after_every_turn(rule: StepRule) -> None:
    """In one dimension every step across the optimum is a turn of two right angles."""
    place = torch.linspace(-3, 3, 13, dtype=torch.float64).unsqueeze(1)
    ids, x = torch.arange(12), torch.tensor([0.9], dtype=torch.float64)
    rows = rows_between(
        place[:-1], place[1:], place.square().flatten().diff(),
        owners=torch.zeros(12, 1, dtype=torch.int64), start=ids, end=ids + 1,
    )  # fmt: skip
    posterior = condition(SlopePrior(kernel="matern52", lengthscale=3.0), centered(rows, x), 1)
    points = virtual_steps(posterior.gradient, x, 1.0, rule=rule, stops=range(1, 6), **FREE)
    expected, z, eta, side = [], 0.9, 1.0, 1
    for _ in range(5):
        now = 1 if z > 0 else -1
        eta = eta / 2 if now != side else eta
        z, side = z - eta * now, now
        expected.append(z)
    assert points.flatten().tolist() == pytest.approx(expected, abs=1e-9)


@every_rule
def test_a_flat_surrogate_is_not_left(rule: StepRule) -> None:
    x = normals(D, key="x")
    flat = surrogate(x)
    still = replace(flat, weights=torch.zeros_like(flat.weights))
    points = virtual_steps(still.gradient, x, 0.5, rule=rule, stops=[1, 4], **FREE)
    assert torch.equal(points, x.expand(2, D))


@every_rule
@settings(max_examples=40)
@given(seed=st.integers(0, 100))
def test_the_walk_lowers_a_convex_quadratic(rule: StepRule, seed: int) -> None:
    x = OPTIMUM + torch.nn.functional.normalize(normals(D, key="x", seed=seed), dim=0)
    points = virtual_steps(surrogate(x, seed).gradient, x, 0.2, rule=rule, stops=[1, 2, 12], **FREE)
    values = quadratic(points)
    assert values[-1] < 0.35 * quadratic(x)
    assert values.min() < quadratic(x)
