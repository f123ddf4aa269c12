"""Kernels against gpytorch, their derivatives against autograd, their limits at zero distance."""

import gpytorch
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.randomness import stream
from fedzo.surrogates.kernels import (
    KERNELS,
    KernelName,
    derivatives,
    first_at_zero,
    radial,
    squared_distances,
)

T = torch.tensor([1e-4, 0.03, 0.5, 1.0, 2.7, 9.0, 40.0], dtype=torch.float64)
LENGTHS = st.floats(0.2, 5)


def reference(kernel: KernelName) -> gpytorch.kernels.Kernel:
    if kernel == "squared_exponential":
        return gpytorch.kernels.RBFKernel()
    if kernel == "matern52":
        return gpytorch.kernels.MaternKernel(nu=2.5)
    quadratic = gpytorch.kernels.RQKernel()
    quadratic.alpha = 1.0
    return quadratic


def everything(kernel: KernelName, t: torch.Tensor, length: float | torch.Tensor) -> torch.Tensor:
    """Return the value and both derivatives, one after the other."""
    return torch.stack([radial(kernel, t, length), *derivatives(kernel, t, length)])


def derivative(kernel: KernelName, t: torch.Tensor, length: float, order: int) -> torch.Tensor:
    """Differentiate the value, and only the value, by autograd."""
    t = t.clone().requires_grad_()
    result = radial(kernel, t, length)
    for _ in range(order):
        [result] = torch.autograd.grad(result.sum(), t, create_graph=True)
    return result.detach()


@pytest.mark.parametrize("kernel", KERNELS)
@given(length=LENGTHS)
def test_values_are_those_of_gpytorch(kernel: KernelName, length: float) -> None:
    theirs = reference(kernel).double()
    theirs.lengthscale = torch.tensor(length, dtype=torch.float64)
    origin = torch.zeros(1, 1, dtype=torch.float64)
    expected = theirs(T.sqrt().unsqueeze(1), origin).to_dense()[:, 0].detach()
    assert torch.allclose(radial(kernel, T, length), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kernel", KERNELS)
@given(length=LENGTHS)
def test_derivatives_are_those_of_autograd(kernel: KernelName, length: float) -> None:
    ours = derivatives(kernel, T, length)
    assert torch.allclose(ours.first, derivative(kernel, T, length, 1), rtol=1e-8, atol=0)
    assert torch.allclose(ours.second, derivative(kernel, T, length, 2), rtol=1e-6, atol=1e-300)


@pytest.mark.parametrize(
    ("kernel", "first", "second"),
    [
        ("squared_exponential", -1 / 2, 1 / 4),
        ("matern52", -5 / 6, 25 / 12),
        ("rational_quadratic", -1 / 2, 1 / 2),
    ],
)
@given(length=LENGTHS)
def test_limits_at_zero_distance(
    kernel: KernelName, first: float, second: float, length: float
) -> None:
    """By hand, from the series in t; the same is reached from the right."""
    expected = torch.tensor([1, first / length**2, second / length**4], dtype=torch.float64)
    there = everything(kernel, torch.zeros((), dtype=torch.float64), length)
    near = everything(kernel, torch.full((), 1e-14, dtype=torch.float64), length)
    assert torch.allclose(there, expected, rtol=1e-12, atol=0)
    assert torch.allclose(near, expected, rtol=1e-5, atol=0)
    assert first_at_zero(kernel, length) == float(there[1])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_tensor_of_lengthscales_broadcasts(kernel: KernelName) -> None:
    lengths = torch.tensor([[0.5], [1.0], [3.0]], dtype=torch.float64)
    together = everything(kernel, T, lengths)
    for row, length in enumerate([0.5, 1.0, 3.0]):
        for ours, alone in zip(together, everything(kernel, T, length), strict=True):
            assert torch.allclose(ours[row], alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kernel", KERNELS)
@given(length=LENGTHS, scale=st.floats(0.1, 10))
def test_scaling_points_and_lengthscale_together_changes_no_value(
    kernel: KernelName, length: float, scale: float
) -> None:
    one, other = (
        everything(kernel, T, length),
        everything(kernel, scale**2 * T, scale * length),
    )
    assert torch.allclose(one[0], other[0], rtol=1e-9)
    assert torch.allclose(one[1], scale**2 * other[1], rtol=1e-9)
    assert torch.allclose(one[2], scale**4 * other[2], rtol=1e-9)


@given(seed=st.integers(0, 1000), d=st.integers(1, 6), offset=st.sampled_from([0.0, 1e3, 1e8]))
def test_squared_distances_are_never_negative(seed: int, d: int, offset: float) -> None:
    points = torch.from_numpy(stream(seed, "points").standard_normal((2, 9, d))) + offset
    assert (squared_distances(points, points) >= 0).all()


def test_squared_distances_of_a_batch() -> None:
    a = torch.from_numpy(stream(0, "a").standard_normal((3, 4, 5)))
    b = torch.from_numpy(stream(0, "b").standard_normal((3, 6, 5)))
    expected = (a.unsqueeze(2) - b.unsqueeze(1)).square().sum(-1)
    assert torch.allclose(squared_distances(a, b), expected, rtol=1e-10)
    three_four = squared_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    assert three_four.tolist() == [[25.0]]
