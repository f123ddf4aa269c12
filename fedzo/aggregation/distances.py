"""Squared distances between n vectors, through one matrix product.

    |x_i - x_j|^2 = G_ii + G_jj - 2 G_ij,   G = (X - c)(X - c)^T

The center c takes away what all rows have in common, so that little is lost to cancellation. It is
the row of median norm, because a mean could be moved anywhere by one row. One that turns out to be
far from most rows, such as a liar's on the other side of zero, gives way to the row that most are
nearest to. Shapes: X [n, d], G and result [n, n] in float64. Cost: n^2 d, twice where a center gave
way; memory: n^2 and one block of columns. What overflows is infinitely far away.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.aggregation.rows import COLUMNS

_FAR = 16.0
"""How much larger the center's squared distance from most rows may be than that of the best."""


def squared_distances(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Return all squared distances; zero on the diagonal, inf where they overflow."""
    return distances_of_gram(centered_gram(vectors))


def centered_gram(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Return the inner products of the rows about one of them that is in their midst."""
    center = _of_median_norm(vectors)
    gram = _gram_about(vectors, center)
    better = _better(distances_of_gram(gram), center)
    return gram if better is None else _gram_about(vectors, better)


def _gram_about(vectors: Float[Tensor, "n d"], center: int) -> Float[Tensor, "n n"]:
    gram = vectors.new_zeros(len(vectors), len(vectors), dtype=torch.float64)
    for block in vectors.split(COLUMNS, dim=1):
        part = block - block[center]
        gram += part @ part.T
    return (gram + gram.T) / 2


def _of_median_norm(vectors: Float[Tensor, "n d"]) -> int:
    norms = torch.linalg.vector_norm(vectors, dim=1)
    return int(norms.argsort(stable=True)[(len(vectors) - 1) // 2])


def _better(squares: Float[Tensor, "m n"], center: int) -> int | None:
    """Return the row that most others are nearest to, where the center is far from most."""
    to_most = squares.median(dim=1).values
    best = int(to_most.argmin())
    return best if to_most[center] > _FAR * to_most[best] else None


def distances_of_gram(gram: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Return squared distances from inner products about any point."""
    own = gram.diagonal()
    squares = own.unsqueeze(1) + own - 2 * gram
    squares = squares.nan_to_num(torch.inf, torch.inf, torch.inf).clamp_min(0)
    return squares.fill_diagonal_(0)


def squared_distances_to(
    vectors: Float[Tensor, "n d"], point: Float[Tensor, " d"]
) -> Float[Tensor, " n"]:
    """Return the squared distance of every row to a point, inf where it overflows."""
    total = vectors.new_zeros(len(vectors), dtype=torch.float64)
    for block, there in zip(vectors.split(COLUMNS, dim=1), point.split(COLUMNS), strict=True):
        total += (block - there).square().sum(dim=1)
    return total.nan_to_num(torch.inf, torch.inf, torch.inf)


def nearest(squares: Float[Tensor, "m n"], count: int) -> Int[Tensor, "m k"]:
    """Return, for each row of distances, the `count` nearest, earlier ones first at ties."""
    return squares.argsort(dim=1, stable=True)[:, :count]


def mean_of(vectors: Float[Tensor, "n d"], chosen: Int[Tensor, " k"]) -> Float[Tensor, " d"]:
    """Return the mean of the chosen rows, without a copy of them."""
    weights = vectors.new_zeros(len(vectors))
    weights[chosen] = 1 / len(chosen)
    return weights @ vectors


def distances_between(
    these: Float[Tensor, "m d"], those: Float[Tensor, "n d"]
) -> Float[Tensor, "m n"]:
    """Return the squared distances of these rows from those, inf where they overflow."""
    center = _of_median_norm(these)
    squares = _about(these[center], these, those)
    better = _better(squares, center)
    return squares if better is None else _about(these[better], these, those)


def _about(
    center: Float[Tensor, " d"], these: Float[Tensor, "m d"], those: Float[Tensor, "n d"]
) -> Float[Tensor, "m n"]:
    total = these.new_zeros(len(these), len(those), dtype=torch.float64)
    blocks = (part.split(COLUMNS, dim=-1) for part in (these, those, center))
    for one, other, middle in zip(*blocks, strict=True):
        one, other = one - middle, other - middle
        lengths = one.square().sum(dim=1, keepdim=True) + other.square().sum(dim=1)
        total += lengths - 2 * one @ other.T
    return total.nan_to_num(torch.inf, torch.inf, torch.inf).clamp_min(0)
