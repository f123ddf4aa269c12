"""The coordinate-wise trimmed mean.

    per coordinate: the mean of the n - 2f numbers that remain without the f largest and f smallest

Yin, Chen, Ramchandran & Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates", ICML 2018, definition 2. Shapes: vectors [n, d], result [d]. Cost: O(d n
log(n)^2). With f = 0 it is the mean.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.rows import trusted_rows
from fedzo.aggregation.sorting import reduce_sorted


def trimmed_mean(vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0) -> Float[Tensor, " d"]:
    """Return the trimmed mean of the finite rows; raises ConfigError unless f < n / 2."""
    rows, f = trusted_rows(vectors, num_byzantine)
    if f == 0:
        return rows.mean(dim=0)

    def inner(ordered: Sequence[Float[Tensor, " c"]]) -> Float[Tensor, " c"]:
        total = ordered[f].clone()
        for row in ordered[f + 1 : len(ordered) - f]:
            total += row
        return total / (len(ordered) - 2 * f)

    return reduce_sorted(rows, inner)
