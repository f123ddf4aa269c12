"""Radial kernels with the two derivatives that gradients and slopes of a Gaussian process need.

    k(x, x') = phi(t),  t = |x - x'|^2
    squared_exponential:  phi = exp(-t / 2 l^2)
    matern52:             phi = (1 + s + s^2 / 3) exp(-s),  s = sqrt(5 t) / l
    rational_quadratic:   phi = (1 + t / (2 a l^2))^-a,  a = 1

    d k / d x             =  2 phi'(t) (x - x')
    d^2 k / d x d x'^T    = -2 phi'(t) I - 4 phi''(t) (x - x')(x - x')^T

Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, eq. 4.9, 4.17, 4.19, and
section 9.4 for derivatives. Shapes: t of any shape, results of the same; l a number or a tensor
that broadcasts. Differs from the book: the shape of the rational quadratic is fixed at a = 1.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

KernelName = Literal["squared_exponential", "matern52", "rational_quadratic"]
KERNELS: tuple[KernelName, ...] = get_args(KernelName)
Lengthscale = float | Tensor


_FIRST_AT_ZERO = {
    "squared_exponential": -0.5,
    "matern52": -(5 / 6),
    "rational_quadratic": -0.5,
}


class Derivatives(NamedTuple):
    """phi' and phi'' by t, at the same t."""

    first: Tensor
    second: Tensor


def radial(kernel: KernelName, t: Tensor, lengthscale: Lengthscale) -> Tensor:
    """Evaluate a kernel at squared distances t >= 0."""
    inverse = 1.0 / lengthscale**2
    if kernel == "squared_exponential":
        return torch.exp(-0.5 * inverse * t)
    if kernel == "matern52":
        s = (5.0 * inverse * t).sqrt()
        return (1 + s + s * s / 3) * torch.exp(-s)
    return 1 / (1 + 0.5 * inverse * t)


def derivatives(kernel: KernelName, t: Tensor, lengthscale: Lengthscale) -> Derivatives:
    """Return the derivatives of a kernel by t; in place where that can be, for t may be large."""
    inverse = 1.0 / lengthscale**2
    if kernel == "squared_exponential":
        value = (-0.5 * inverse * t).exp_()
        return Derivatives(-0.5 * inverse * value, value.mul_(0.25 * inverse**2))
    if kernel == "matern52":
        s = (5.0 * inverse * t).sqrt_()
        decay = torch.exp(-s)
        first = s.add_(1).mul_(-(5 / 6) * inverse).mul_(decay)
        return Derivatives(first, decay.mul_((25 / 12) * inverse**2))
    value = 1 / (1 + 0.5 * inverse * t)
    return Derivatives(-0.5 * inverse * value**2, 0.5 * inverse**2 * value**3)


def first_at_zero(kernel: KernelName, lengthscale: Lengthscale) -> Lengthscale:
    """Return phi'(0)."""
    return _FIRST_AT_ZERO[kernel] * (1.0 / lengthscale**2)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return |a_i - b_j|^2 for points [*, p, d] and [*, q, d], never negative."""
    return distances_of_products(a @ b.mT, (a * a).sum(-1), (b * b).sum(-1))


def distances_of_products(cross: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances of points with inner products `cross` and squared norms a and b."""
    return (a.unsqueeze(-1) + b.unsqueeze(-2)).sub_(cross, alpha=2).clamp_min_(0.0)
