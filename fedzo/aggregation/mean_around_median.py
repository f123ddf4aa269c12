"""Per coordinate, the mean of the n - f numbers that are closest to the median.

Xie, Koyejo & Gupta, "Generalized Byzantine-tolerant SGD", arXiv 1802.10116, definition 4. In order
of size the n - f closest lie side by side, so one of f + 1 windows is chosen. Shapes: vectors
[n, d], result [d]. Cost: O(d n log(n)^2).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.median import middle
from fedzo.aggregation.rows import trusted_rows
from fedzo.aggregation.sorting import reduce_sorted


def mean_around_median(
    vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0
) -> Float[Tensor, " d"]:
    """Return the mean around the median of the finite rows; raises ConfigError unless f < n / 2."""
    rows, f = trusted_rows(vectors, num_byzantine)

    def around(ordered: Sequence[Float[Tensor, " c"]]) -> Float[Tensor, " c"]:
        center, size = middle(ordered), len(ordered) - f
        first = torch.zeros_like(center)
        narrowest = torch.full_like(center, torch.inf)
        for start in range(f + 1):
            ends = (center - ordered[start], ordered[start + size - 1] - center)
            reach = torch.maximum(*ends)
            first = first.where(reach >= narrowest, start)
            narrowest = torch.minimum(reach, narrowest)
        total = torch.zeros_like(center)
        for position, row in enumerate(ordered):
            inside = (first <= position) & (position < first + size)
            total += row.where(inside, 0)
        return total / size

    return reduce_sorted(rows, around)
