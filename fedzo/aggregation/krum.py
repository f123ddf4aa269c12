"""Krum and multi-Krum: the vector, or the m vectors, with the closest neighbors.

    score_i = mean of the squared distances from x_i to its k nearest others;   Krum: argmin score

Blanchard, El Mhamdi, Guerraoui & Stainer, "Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent", NeurIPS 2017, section 4: k = n - f - 2, proved for n > 2 f + 2. byzfl and later
papers use k = n - f - 1, the others in a set of n - f; `neighbors` says which, "all_honest" (the
default, n - f - 1) or "original" (n - f - 2). Shapes: vectors [n, d], result [d]. Cost: n^2 d.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.distances import mean_of, squared_distances
from fedzo.aggregation.rows import too_many, trusted_rows
from fedzo.config import require

Neighbors = Literal["all_honest", "original"]


def krum(
    vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0, neighbors: Neighbors = "all_honest"
) -> Float[Tensor, " d"]:
    """Return the finite row with the lowest score, the first of equals.

    Raises ConfigError unless f < n / 2, with original neighbors unless n > 2 f + 2.
    """
    require_neighbors(len(vectors), num_byzantine, neighbors)
    rows, f = trusted_rows(vectors, num_byzantine)
    return rows[int(krum_scores(squared_distances(rows), f, neighbors).argmin())]


def multi_krum(
    vectors: Float[Tensor, "n d"],
    *,
    num_byzantine: int = 0,
    num_selected: int = 0,
    neighbors: Neighbors = "all_honest",
) -> Float[Tensor, " d"]:
    """Return the mean of the `num_selected` rows with the lowest scores; 0 takes n - f.

    Raises ConfigError as krum does, and for more selected than there are.
    """
    require_neighbors(len(vectors), num_byzantine, neighbors)
    require(0 <= num_selected <= len(vectors), "num_selected", num_selected, f"0 to {len(vectors)}")
    rows, f = trusted_rows(vectors, num_byzantine)
    scores = krum_scores(squared_distances(rows), f, neighbors)
    order = scores.argsort(stable=True)
    return mean_of(rows, order[: min(num_selected or len(rows) - f, len(rows))])


def krum_scores(
    squares: Float[Tensor, "n n"], num_byzantine: int, neighbors: Neighbors = "all_honest"
) -> Float[Tensor, " n"]:
    """Return every row's mean squared distance to its nearest others."""
    if len(squares) == 1:
        return squares[0]
    count = len(squares) - num_byzantine - (2 if neighbors == "original" else 1)
    others = squares.clone().fill_diagonal_(-1).sort(dim=1).values[:, 1:]
    scores: Tensor = others[:, : max(1, count)].mean(dim=1)
    return scores


def require_neighbors(num_clients: int, num_byzantine: int, neighbors: Neighbors) -> None:
    """Raise ConfigError where the original Krum would have no neighbor to look at."""
    require(
        neighbors in ("all_honest", "original"), "neighbors", neighbors, "all_honest or original"
    )
    bound = 2 * num_byzantine + 2
    if neighbors == "original" and num_clients <= bound:
        raise too_many(num_byzantine, bound, num_clients)
