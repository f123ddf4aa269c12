"""Smallest maximum eigenvalue averaging: the n - f vectors with the tamest covariance.

    S = argmin over subsets of n - f of lambda_max(cov(S));   result: mean of S

Allouah, Guerraoui, Gupta, Pinot & Stephan, "On the Privacy-Robustness-Utility Trilemma in
Distributed Learning", ICML 2023. Shapes: vectors [n, d], result [d]. Cost: n^2 d, and an
eigenvalue problem of size n - f for each subset: for small n only.

Differs from byzfl, which takes one step of the power method from a random start: the eigenvalues
here are exact, so the result is no matter of chance.
"""

import math
from collections.abc import Iterator
from itertools import combinations, islice

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.aggregation.distances import centered_gram, mean_of
from fedzo.aggregation.rows import trusted_rows
from fedzo.errors import ConfigError

MOST_SUBSETS = 1_000_000
_AT_ONCE = 4096


def smea(vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0) -> Float[Tensor, " d"]:
    """Return the mean of the finite rows' best subset, the first of equals.

    Raises ConfigError unless f < n / 2, and for more than a million subsets.
    """
    rows, f = trusted_rows(vectors, num_byzantine)
    require_few_subsets(len(rows), f)
    gram = centered_gram(rows)
    least, best = torch.inf, torch.arange(len(rows) - f)
    for subsets in _subsets(len(rows), len(rows) - f):
        part = gram[subsets.unsqueeze(2), subsets.unsqueeze(1)]
        means = part.mean(dim=2, keepdim=True)
        scatter = part - means - means.mT + means.mean(dim=1, keepdim=True)
        largest = torch.linalg.eigvalsh(scatter)[:, -1]
        position = int(largest.argmin())
        if float(largest[position]) < least:
            least, best = float(largest[position]), subsets[position]
    return mean_of(rows, best)


def require_few_subsets(num_vectors: int, num_byzantine: int) -> None:
    """Raise ConfigError for more than a million subsets."""
    count = math.comb(num_vectors, num_byzantine)
    if count > MOST_SUBSETS:
        raise ConfigError(
            f"num_byzantine={num_byzantine} of {num_vectors} vectors gives {count:,} subsets, and"
            f" smea looks at all of them, at most {MOST_SUBSETS:,}; use caf, which bounds the same"
            " eigenvalue"
        )


def _subsets(size: int, count: int) -> Iterator[Int[Tensor, "b k"]]:
    every = combinations(range(size), count)
    while some := list(islice(every, _AT_ONCE)):
        yield torch.tensor(some)
