"""The geometric median, by Weiszfeld's iteration.

    argmin_z sum_i |x_i - z|
    z <- sum_i b_i x_i / sum_i b_i,   b_i = 1 / max(smoothing, |x_i - z|)

Weiszfeld, Tohoku Math. J. 1937; smoothed, T steps: Pillutla, Kakade & Harchaoui, "Robust
Aggregation for Federated Learning" (RFA), IEEE TSP 2022, algorithm 2. Every z is a weighted mean of
the rows, so the iteration is done on the n weights, with the rows' inner products. Shapes: vectors
[n, d], result [d]. Cost: n^2 d once, and n^2 a step.

Differs from RFA and from byzfl: it starts at the mean of the half around the row with the least sum
of distances, not at 0, so the result moves with the vectors; and it goes on until it stands still
unless `num_iterations` says otherwise.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.distances import centered_gram, distances_of_gram, nearest
from fedzo.aggregation.rows import trusted_rows
from fedzo.config import require, require_nonnegative

_MOST = 10_000


def geometric_median(
    vectors: Float[Tensor, "n d"],
    *,
    num_byzantine: int = 0,
    smoothing: float = 0.0,
    num_iterations: int = 0,
    tolerance: float = 1e-12,
) -> Float[Tensor, " d"]:
    """Return the geometric median of the finite rows.

    smoothing: distances below it count as it, in units of x; never below 1e-9 of the median
    distance. num_iterations: steps T; 0 goes on until a step is below `tolerance` of that distance.
    Raises ConfigError unless f < n / 2.
    """
    require_nonnegative("smoothing", smoothing)
    require(num_iterations >= 0, "num_iterations", num_iterations, "0 (until it stands) or more")
    require(0 < tolerance < 1, "tolerance", tolerance, "above 0 and below 1")
    rows, _ = trusted_rows(vectors, num_byzantine)
    gram, weights = _start(centered_gram(rows))
    for _ in range(num_iterations or _MOST):
        reached = gram @ weights
        lengths = (gram.diagonal() - 2 * reached + weights @ reached).clamp_min(0).sqrt()
        typical = float(lengths.median())
        if typical == 0:  # most rows lie here: this is the median
            break
        inverse = 1 / lengths.clamp_min(max(smoothing, 1e-9 * typical))
        fresh = inverse / inverse.sum()
        change = fresh - weights
        weights = fresh
        if num_iterations == 0 and float(change @ gram @ change) < (tolerance * typical) ** 2:
            break
    return weights.to(rows) @ rows


def _start(gram: Float[Tensor, "n n"]) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
    """Return the inner products about the row in the middle, and equal weights of the half there.

    So what is computed near the median is small numbers, however far away the other half is.
    """
    lengths = distances_of_gram(gram).sqrt()
    middle = int(lengths.sum(dim=1).argmin())
    column = gram[:, middle]
    recentered = gram - column - column.unsqueeze(1) + gram[middle, middle]
    half = nearest(lengths[middle].unsqueeze(0), len(gram) // 2 + 1)[0]
    weights = torch.zeros_like(column)
    weights[half] = 1 / len(half)
    return recentered, weights
