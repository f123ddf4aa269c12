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


class Radial(NamedTuple):
    """phi and its first two derivatives by t, at the same t."""

    value: Tensor
    first: Tensor
    second: Tensor


def radial(kernel: KernelName, t: Tensor, lengthscale: Lengthscale) -> Radial:
    """Evaluate a kernel at squared distances t >= 0."""
    inverse = 1.0 / lengthscale**2
    if kernel == "squared_exponential":
        value = torch.exp(-0.5 * inverse * t)
        return Radial(value, -0.5 * inverse * value, 0.25 * inverse**2 * value)
    if kernel == "matern52":
        s = (5.0 * inverse * t).sqrt()
        decay = torch.exp(-s)
        first = -(5 / 6) * inverse * (1 + s) * decay
        return Radial((1 + s + s * s / 3) * decay, first, (25 / 12) * inverse**2 * decay)
    value = 1 / (1 + 0.5 * inverse * t)
    return Radial(value, -0.5 * inverse * value**2, 0.5 * inverse**2 * value**3)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return |a_i - b_j|^2 for points [*, p, d] and [*, q, d], never negative."""
    cross = a @ b.mT
    total = (a * a).sum(-1).unsqueeze(-1) + (b * b).sum(-1).unsqueeze(-2) - 2 * cross
    return total.clamp_min(0.0)
