"""Minimum-diameter averaging: the mean of the n - f vectors that lie closest together.

    S = argmin over subsets of n - f of max_{i,j in S} |x_i - x_j|;   result: mean of S

El Mhamdi, Guerraoui & Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium",
ICML 2018. Shapes: vectors [n, d], result [d]. Cost: n^2 d, and a search.

Differs from the usual enumeration of all subsets: a diameter t is possible if leaving out f vectors
can break every pair that is further apart than t, a vertex cover of size f, which a search of depth
f finds; so the smallest t is found by bisection. Of several subsets the first in lexicographic
order is taken, as an enumeration would.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.distances import mean_of, squared_distances
from fedzo.aggregation.rows import trusted_rows

Graph = tuple[frozenset[int], ...]


def minimum_diameter(
    vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0
) -> Float[Tensor, " d"]:
    """Return the mean of the tightest n - f finite rows; raises ConfigError unless f < n / 2."""
    rows, f = trusted_rows(vectors, num_byzantine)
    return mean_of(rows, torch.tensor(tightest_subset(squared_distances(rows), f)))


def tightest_subset(squares: Float[Tensor, "n n"], num_byzantine: int) -> list[int]:
    """Return the n - f numbers whose largest distance is smallest, the first of equal subsets."""
    levels = squares.unique().tolist()
    low, high = 0, len(levels) - 1
    while low < high:
        half = (low + high) // 2
        possible = _coverable(_farther(squares, levels[half]), num_byzantine)
        low, high = (low, half) if possible else (half + 1, high)
    graph, kept, left_out = _farther(squares, levels[low]), [], frozenset[int]()
    for i in range(len(squares)):
        if i in left_out:
            continue
        spent = left_out | graph[i]
        rest = num_byzantine - len(spent)
        if rest >= 0 and _coverable(_without(graph, spent), rest):
            kept.append(i)
        else:
            spent = left_out | {i}
        graph, left_out = _without(graph, spent), spent
    return kept[: len(squares) - num_byzantine]


def _farther(squares: Float[Tensor, "n n"], limit: float) -> Graph:
    """Return, for each number, those that are further away than the limit."""
    return tuple(frozenset(row.nonzero().flatten().tolist()) for row in squares > limit)


def _without(graph: Graph, numbers: frozenset[int]) -> Graph:
    return tuple(
        frozenset() if i in numbers else around - numbers for i, around in enumerate(graph)
    )


def _coverable(graph: Graph, budget: int) -> bool:
    """Return whether leaving out `budget` numbers leaves no pair; depth-first, largest first."""
    busiest = max(range(len(graph)), key=lambda i: len(graph[i]))
    degree = len(graph[busiest])
    if degree == 0:
        return True
    pairs = sum(len(around) for around in graph) // 2
    if budget <= 0 or pairs > budget * degree:
        return False
    if _coverable(_without(graph, frozenset([busiest])), budget - 1):
        return True
    around = graph[busiest]
    return len(around) <= budget and _coverable(_without(graph, around), budget - len(around))
