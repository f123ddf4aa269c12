"""The coordinate-wise median.

    median(v)_k = the middle of v_1k, ..., v_nk; the mean of the two middle ones for even n

Yin, Chen, Ramchandran & Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates", ICML 2018, definition 1. Shapes: vectors [n, d], result [d]. Cost: O(d n
log(n)^2).
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.rows import trusted_rows
from fedzo.aggregation.sorting import reduce_sorted


def median(vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0) -> Float[Tensor, " d"]:
    """Return the coordinate-wise median of the finite rows.

    Raises ConfigError unless num_byzantine < n / 2.
    """
    rows, _ = trusted_rows(vectors, num_byzantine)
    return reduce_sorted(rows, middle)


def middle(rows: Sequence[Float[Tensor, " c"]]) -> Float[Tensor, " c"]:
    """Return the median of sorted rows."""
    low, high = rows[(len(rows) - 1) // 2], rows[len(rows) // 2]
    return low + (high - low) / 2
