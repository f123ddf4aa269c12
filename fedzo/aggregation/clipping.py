"""Clipping of long vectors, to a given length or to one that the vectors themselves set.

    static:     x_i <- x_i min(1, radius / |x_i|)
    adaptive:   the same with radius = the (n - k)-th smallest length, k = floor(2 (f / n)(n - f))

Adaptive: Allouah, Guerraoui, Gupta, Jellouli, Rizk & Stephan, "Adaptive Gradient Clipping for
Robust Federated Learning" (ARC), ICLR 2025, algorithm 2. As rules they return the mean of what was
clipped; before another rule (`adaptive_clip | trimmed_mean`) they hand on the vectors. Shapes:
vectors [n, d], result [d]. Cost: two passes. The vectors that are given are not changed.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.rows import trusted_rows
from fedzo.config import require


def clip(
    vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0, radius: float = 2.0
) -> Float[Tensor, " d"]:
    """Return the mean of the finite rows, clipped to `radius`.

    Raises ConfigError unless f < n / 2.
    """
    rows, shares = _static(vectors, num_byzantine, radius)
    return (shares / len(rows)) @ rows


def adaptive_clip(vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0) -> Float[Tensor, " d"]:
    """Return the mean of the finite rows after ARC; raises ConfigError unless f < n / 2."""
    rows, shares = _adaptive(vectors, num_byzantine)
    return (shares / len(rows)) @ rows


def clipped(
    vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0, radius: float = 2.0
) -> Float[Tensor, "k d"]:
    """Return the finite rows, each no longer than `radius`."""
    rows, shares = _static(vectors, num_byzantine, radius)
    return shares.unsqueeze(1) * rows


def adaptively_clipped(
    vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0
) -> Float[Tensor, "k d"]:
    """Return the finite rows, the k longest shortened to the length of the next."""
    rows, shares = _adaptive(vectors, num_byzantine)
    return shares.unsqueeze(1) * rows


def _static(
    vectors: Float[Tensor, "n d"], num_byzantine: int, radius: float
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    require(0 < radius < math.inf, "radius", radius, "positive and finite")
    rows, _ = trusted_rows(vectors, num_byzantine)
    return rows, _shares(torch.linalg.vector_norm(rows, dim=1), radius)


def _adaptive(
    vectors: Float[Tensor, "n d"], num_byzantine: int
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    rows, f = trusted_rows(vectors, num_byzantine)
    lengths = torch.linalg.vector_norm(rows, dim=1)
    n = len(rows)
    longest = int(2 * f * (n - f) / n)
    return rows, _shares(lengths, float(lengths.sort().values[n - longest - 1]))


def _shares(lengths: Float[Tensor, " k"], radius: float) -> Float[Tensor, " k"]:
    """Return what is left of each vector; nothing of one whose length overflows."""
    return (radius / lengths.clamp_min(radius)) if radius > 0 else (lengths == 0).to(lengths)
