"""Centered clipping: from a known center, follow everybody for a limited way.

    v <- v + (1/n) sum_i (x_i - v) min(1, radius / |x_i - v|),   L times

Karimireddy, He & Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
algorithm 2. `start` is the last result (strategies keep it; 0 before the first): this is what makes
it learn from history. Shapes: vectors [n, d], start [d], result [d]. Cost: two passes over the
vectors a step; no copy of them.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.distances import squared_distances_to
from fedzo.aggregation.rows import trusted_rows
from fedzo.config import require


def centered_clipping(
    vectors: Float[Tensor, "n d"],
    *,
    num_byzantine: int = 0,
    start: Float[Tensor, " d"] | None = None,
    radius: float = 100.0,
    num_iterations: int = 1,
) -> Float[Tensor, " d"]:
    """Return the center after `num_iterations` steps over the finite rows.

    radius: in units of x; one of about the honest vectors' distance from their mean is best. Raises
    ConfigError unless f < n / 2.
    """
    require(0 < radius < math.inf, "radius", radius, "positive and finite")
    require(num_iterations >= 1, "num_iterations", num_iterations, "at least 1")
    rows, _ = trusted_rows(vectors, num_byzantine)
    center = torch.zeros_like(rows[0]) if start is None else start.to(rows)
    for _ in range(num_iterations):
        shares = radius / squared_distances_to(rows, center).sqrt()
        shares = (shares.clamp_max(1) / len(rows)).to(rows)
        center = (1 - shares.sum()) * center + shares @ rows
    return center
