"""Random features: the kernel they approximate, their gradient, and the weights that are sent."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.randomness import stream
from fedzo.surrogates.gp import Observations, condition_values
from fedzo.surrogates.random_features import RandomFeatures, make_features

N, M, D = 2, 7, 3
LENGTH, NOISE = 1.3, 0.05


def normals(*shape: int, key: str) -> torch.Tensor:
    return torch.from_numpy(stream(0, key).standard_normal(shape))


def observations() -> Observations:
    known = torch.ones(N, M, dtype=torch.bool)
    known[1, [0, 4]] = False
    return Observations(
        points=normals(N, M, D, key="points"), values=normals(N, M, key="values"), known=known
    )


def waves(shared: RandomFeatures, x: torch.Tensor) -> torch.Tensor:
    """Return phi(x) as the paper defines it."""
    angles = torch.einsum("fd,qd->qf", shared.frequencies, x) + shared.phases
    return torch.cos(angles) * math.sqrt(2) / math.sqrt(shared.phases.numel())


def kernel_error(num_features: int, length: float) -> float:
    """Return the root mean square error of phi(x).phi(x') over pairs and seeds."""
    x = 1.5 * normals(12, D, key="x")
    exact = torch.exp(-torch.cdist(x, x).square() / (2 * length**2))
    errors = []
    for seed in range(40):
        phi = make_features(num_features, D, length, seed).features(x)
        errors.append((phi @ phi.T - exact).square().mean())
    return math.sqrt(torch.stack(errors).mean())


@pytest.mark.parametrize("length", [0.6, 1.3])
def test_sixteen_times_the_features_have_a_quarter_of_the_error(length: float) -> None:
    few, many = kernel_error(32, length), kernel_error(512, length)
    assert few / many == pytest.approx(4, rel=0.15)
    assert few < 1 / math.sqrt(32)


def test_features_are_those_of_the_paper() -> None:
    shared, x = make_features(64, D, LENGTH, 0), normals(5, D, key="x")
    assert len(shared) == 64
    assert torch.allclose(shared.features(x), waves(shared, x), rtol=1e-12, atol=1e-14)


def test_the_laws_of_frequencies_and_phases() -> None:
    """Moments by hand: variance 1 / l^2 of a frequency, and a phase uniform on [0, 2 pi]."""
    count = 20_000
    shared = make_features(count, D, LENGTH, 0)
    scaled = (shared.frequencies * LENGTH).square()
    assert ((scaled.mean(0) - 1).abs() < 5 * scaled.std(0) / count**0.5).all()
    assert shared.phases.min() >= 0
    assert shared.phases.max() <= 2 * math.pi
    for turns in (shared.phases.sin(), shared.phases.cos(), (2 * shared.phases).cos()):
        assert abs(turns.mean()) < 5 * turns.std() / count**0.5


def test_the_gradient_is_autograd_of_the_surrogate() -> None:
    shared, x = make_features(50, D, LENGTH, 3), normals(6, D, key="x")
    weights = normals(6, 50, key="w")
    at = x.clone().requires_grad_()
    [expected] = torch.autograd.grad((waves(shared, at) * weights).sum(), at)
    assert torch.allclose(shared.gradient(weights, x), expected, rtol=1e-10, atol=1e-12)


def test_weights_satisfy_the_normal_equations() -> None:
    """w minimizes sum_r (phi(x_r).w - y_r)^2 + s^2 |w|^2 over the known rows."""
    shared, data = make_features(40, D, LENGTH, 0), observations()
    weights = shared.weights(data, NOISE)
    for i in range(N):
        known = data.known[i]
        phi, y = waves(shared, data.points[i][known]), data.values[i][known]
        slope = phi.T @ (phi @ weights[i] - y) + NOISE * weights[i]
        assert slope.norm() < 1e-10 * (phi.T @ y).norm()


def test_weights_without_noise_interpolate() -> None:
    shared, data = make_features(200, D, LENGTH, 0), observations()
    weights = shared.weights(data, 0.0)
    for i in range(N):
        known = data.known[i]
        fitted = waves(shared, data.points[i][known]) @ weights[i]
        assert torch.allclose(fitted, data.values[i][known], atol=1e-8)


def test_rows_outside_known_are_not_data() -> None:
    shared, data = make_features(40, D, LENGTH, 0), observations()
    known = data.known[1:]
    changed = Observations(
        points=data.points[1:].masked_fill(~known.unsqueeze(-1), 7.0),
        values=data.values[1:].masked_fill(~known, -9.0),
        known=known,
    )
    expected = shared.weights(data, NOISE)[1:]
    assert torch.allclose(shared.weights(changed, NOISE), expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_converges_to_the_gaussian_process() -> None:
    """The error falls as 1 / sqrt(M), to the exact surrogate with the same noise."""
    data, x = observations(), normals(N, D, key="x")
    lengths = torch.full((N,), LENGTH, dtype=torch.float64)
    exact = condition_values("squared_exponential", lengths, data, NOISE)
    goal = exact.gradient(x.unsqueeze(1)).squeeze(1)

    def error(count: int) -> float:
        squares = []
        for seed in range(12):
            shared = make_features(count, D, LENGTH, seed)
            squares.append((shared.gradient(shared.weights(data, NOISE), x) - goal).square().mean())
        return math.sqrt(torch.stack(squares).mean())

    few, many = error(1000), error(16_000)
    assert few / many == pytest.approx(4, rel=0.35)
    assert many < 0.1 * goal.square().mean().sqrt()


@given(seed=st.integers(0, 10**6), count=st.integers(1, 20), d=st.integers(1, 5))
def test_the_seed_makes_the_features(seed: int, count: int, d: int) -> None:
    one = make_features(count, d, LENGTH, seed)
    make_features.cache_clear()
    same, other = (make_features(count, d, LENGTH, s) for s in (seed, seed + 1))
    assert torch.equal(one.frequencies, same.frequencies)
    assert torch.equal(one.phases, same.phases)
    assert not torch.equal(one.frequencies, other.frequencies)
    assert not torch.equal(one.phases, other.phases)
