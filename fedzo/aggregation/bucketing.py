"""Bucketing: random groups of s vectors, each replaced by its mean.

    [n, d] -> [ceil(n / s), d], the last group smaller where s does not divide n

Karimireddy, He & Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR
2022, algorithm 1. It brings honest vectors closer together, and a rule that follows has the same f
malicious ones among fewer: it needs f < ceil(n / s) / 2. Cost: n^2 d / s.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.rows import finite_rows, precise, require_majority, trusted_rows
from fedzo.config import require


def bucketing(
    vectors: Float[Tensor, "n d"],
    *,
    generator: np.random.Generator,
    num_byzantine: int = 0,
    size: int = 2,
) -> Float[Tensor, "b d"]:
    """Return the means of random groups of `size`; a row that is not finite is in no group's mean.

    A group of such rows alone has the mean of all finite ones. Raises ConfigError unless f is below
    half the number of groups.
    """
    require(size >= 1, "size", size, "at least 1")
    vectors, n = precise(vectors), len(vectors)
    size = min(size, n)
    require_majority(-(-n // size), num_byzantine)
    order = torch.from_numpy(generator.permutation(n))
    groups = torch.zeros(-(-n // size), n, dtype=vectors.dtype, device=vectors.device)
    groups[torch.arange(n) // size, order] = 1
    finite = finite_rows(vectors)
    if not finite.all():
        groups, vectors = groups[:, finite], trusted_rows(vectors, num_byzantine)[0]
        groups[groups.sum(dim=1) == 0] = 1
    return (groups / groups.sum(dim=1, keepdim=True)) @ vectors
