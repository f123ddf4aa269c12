"""The derived Gaussian process against autograd and finite differences of its own posterior."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from fedzo.randomness import stream
from fedzo.surrogates.gp import (
    GradientPosterior,
    Observations,
    condition_values,
)
from fedzo.surrogates.kernels import KERNELS, KernelName
from fedzo.surrogates.lengthscale_fit import fit_lengthscale

N, M, D, Q = 3, 8, 4, 5
NOISE = 1e-2
LENGTHS = torch.tensor([0.8, 1.5, 3.0], dtype=torch.float64)
Covariance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def normals(*shape: int, key: str, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(stream(seed, key).standard_normal(shape))


def observations(seed: int = 0, m: int = M, offset: float = 0.0) -> Observations:
    points = normals(N, m, D, key="points", seed=seed) + offset
    values = normals(N, m, key="values", seed=seed)
    return Observations(points=points, values=values, known=torch.ones(N, m, dtype=torch.bool))


def prior(kernel: KernelName, a: torch.Tensor, b: torch.Tensor, length: float) -> torch.Tensor:
    """Return k between [p, d] and [q, d], from differences."""
    r = (a.unsqueeze(1) - b).square().sum(-1) / length**2
    if kernel == "squared_exponential":
        return torch.exp(-r / 2)
    if kernel == "rational_quadratic":
        return 2 / (2 + r)
    root = math.sqrt(5) * r.clamp_min(1e-300).sqrt()
    return (1 + root + 5 * r / 3) * torch.exp(-root)


def one_client(kernel: KernelName, data: Observations, i: int) -> tuple[torch.Tensor, Covariance]:
    """Return (K + s^2 I)^-1 y and the posterior covariance function of client i."""
    points, length = data.points[i], float(LENGTHS[i])
    gram = prior(kernel, points, points, length) + NOISE * torch.eye(len(points))

    def covariance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        left, right = (prior(kernel, x, points, length) for x in (a, b))
        return prior(kernel, a, b, length) - left @ torch.linalg.solve(gram, right.T)

    return torch.linalg.solve(gram, data.values[i]), covariance


def posterior(kernel: KernelName, data: Observations) -> GradientPosterior:
    return condition_values(kernel, LENGTHS, data, NOISE)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_gradient_is_autograd_of_the_posterior_mean(kernel: KernelName) -> None:
    data, x = observations(), normals(N, Q, D, key="x")
    ours = posterior(kernel, data).gradient(x)
    for i in range(N):
        weights, _ = one_client(kernel, data, i)
        at = x[i].clone().requires_grad_()
        mean = prior(kernel, at, data.points[i], float(LENGTHS[i])) @ weights
        [expected] = torch.autograd.grad(mean.sum(), at)
        assert torch.allclose(ours[i], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_covariance_is_the_mixed_difference_of_the_posterior(kernel: KernelName) -> None:
    data, x, h = observations(), normals(N, D, key="x"), 1e-3
    ours = posterior(kernel, data).covariance(x)
    for i in range(N):
        _, c = one_client(kernel, data, i)
        up, down = (x[i] + s * h * torch.eye(D, dtype=x.dtype) for s in (1, -1))
        expected = (c(up, up) - c(up, down) - c(down, up) + c(down, down)) / (4 * h * h)
        assert torch.allclose(ours[i], expected, rtol=0, atol=1e-4 * expected.diagonal().max())


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_uncertainty_is_the_trace_of_the_covariance(kernel: KernelName, offset: float) -> None:
    data, x = observations(offset=offset), normals(N, Q, D, key="x") + offset
    fitted = posterior(kernel, data)
    covariances = torch.stack([fitted.covariance(x[:, q]) for q in range(Q)], dim=1)
    traces = covariances.diagonal(dim1=2, dim2=3).sum(-1)
    assert torch.allclose(fitted.uncertainty(x), traces, rtol=1e-7)


@pytest.mark.parametrize("kernel", KERNELS)
@given(seed=st.integers(0, 1000), dropped=st.integers(0, M - 1))
def test_one_more_observation_lowers_uncertainty(
    kernel: KernelName, seed: int, dropped: int
) -> None:
    data, x = observations(seed), normals(N, Q, D, key="x", seed=seed)
    known = data.known.clone()
    known[:, dropped] = False
    fewer = posterior(kernel, replace(data, known=known)).uncertainty(x)
    more = posterior(kernel, data).uncertainty(x)
    assert (more <= fewer * (1 + 1e-9)).all(), "one that is far off may say nothing at all"
    assert (more.mean(dim=1) < fewer.mean(dim=1)).all()
    assert (more > 0).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_padding_changes_nothing(kernel: KernelName) -> None:
    data, x = observations(), normals(N, Q, D, key="x")
    garbage = observations(seed=1)
    padded = Observations(
        points=torch.cat([garbage.points[:, :2], data.points, garbage.points[:, 2:4]], dim=1),
        values=torch.cat([garbage.values[:, :2], data.values, garbage.values[:, 2:4]], dim=1),
        known=torch.tensor([[False] * 2 + [True] * M + [False] * 2] * N),
    )
    ours, plain = posterior(kernel, padded), posterior(kernel, data)
    assert torch.allclose(ours.gradient(x), plain.gradient(x), rtol=1e-9, atol=1e-12)
    assert torch.allclose(ours.uncertainty(x), plain.uncertainty(x), rtol=1e-9)
    assert torch.allclose(ours.covariance(x[:, 0]), plain.covariance(x[:, 0]), atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_batch_is_its_clients_one_at_a_time(kernel: KernelName) -> None:
    data, x = observations(), normals(N, Q, D, key="x")
    together = posterior(kernel, data)
    fits = fit_lengthscale(kernel, LENGTHS, data, NOISE, steps=5)
    for i in range(N):
        one = slice(i, i + 1)
        mine = Observations(points=data.points[one], values=data.values[one], known=data.known[one])
        alone = condition_values(kernel, LENGTHS[one], mine, NOISE)
        assert torch.allclose(together.gradient(x)[one], alone.gradient(x[one]), rtol=1e-10)
        assert torch.allclose(together.uncertainty(x)[one], alone.uncertainty(x[one]), rtol=1e-10)
        fit = fit_lengthscale(kernel, LENGTHS[one], mine, NOISE, steps=5)
        assert torch.allclose(fits[one], fit, rtol=1e-6)


def evidence(kernel: KernelName, points: torch.Tensor, y: torch.Tensor, length: float) -> float:
    """Return the log likelihood at the best outputscale."""
    gram = prior(kernel, points, points, length).numpy()

    def negative(log_scale: float) -> float:
        full = math.exp(log_scale) * gram + NOISE**2 * np.eye(len(gram))
        return -float(multivariate_normal.logpdf(y.numpy(), cov=full))

    return -float(minimize_scalar(negative, bounds=(-6, 6), method="bounded").fun)


@pytest.mark.more
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("start", [0.5, 2.0])
def test_a_fit_finds_the_lengthscale_of_the_data(kernel: KernelName, start: float) -> None:
    """Draws of two clients with lengthscales 0.7 and 1.4 and unit variance."""
    truth, m = [0.7, 1.4], 60
    points = 2 * normals(2, m, 2, key="points")
    draws = []
    for i, length in enumerate(truth):
        gram = prior(kernel, points[i], points[i], length) + NOISE**2 * torch.eye(m)
        draws.append(torch.linalg.cholesky(gram) @ normals(m, key=f"y{i}"))
    data = Observations(
        points=points, values=torch.stack(draws), known=torch.ones(2, m, dtype=torch.bool)
    )
    found = fit_lengthscale(
        kernel, torch.full((2,), start, dtype=torch.float64), data, NOISE**2, steps=40
    )
    for i, length in enumerate(truth):
        assert length / 2 < float(found[i]) < 2 * length
        before, after = (evidence(kernel, points[i], draws[i], s) for s in (start, float(found[i])))
        assert after > before


@pytest.mark.parametrize("m", [30, 801])
def test_a_fit_touches_no_global_random_state(m: int) -> None:
    """801 points are more than gpytorch factorizes unless it is told to.

    Python's own state is left to test_house: the checker of types draws from it here.
    """
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit_lengthscale("matern52", LENGTHS, observations(m=m), NOISE, steps=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
