"""Who hears whom: communication graphs by name.

| text                             | graph                                             |
|----------------------------------|---------------------------------------------------|
| complete                         | everybody hears everybody                         |
| ring(neighbors=4)                | a ring in which each hears the k nearest          |
| random_regular(degree=8, seed=0) | each hears as many, drawn at random               |
| erdos_renyi(p=0.5, seed=0)       | each pair with probability p                      |
| torus                            | a grid whose ends meet, of nearly equal sides     |
| a path                           | a file of networkx edge lists: two numbers a line |
"""

import math
from collections.abc import Callable
from pathlib import Path

import networkx as nx

from fedzo.calls import parse_call
from fedzo.config import require
from fedzo.errors import ConfigError

MakeGraph = Callable[[int], nx.Graph]


def complete(n: int) -> nx.Graph:
    return nx.complete_graph(n)


def ring(n: int, *, neighbors: int = 2) -> nx.Graph:
    require(2 <= neighbors < n, "ring.neighbors", neighbors, f"2 or more and below {n} clients")
    require(neighbors % 2 == 0, "ring.neighbors", neighbors, "even: as many on either side")
    return nx.circulant_graph(n, range(1, neighbors // 2 + 1))


def random_regular(n: int, *, degree: int = 8, seed: int = 0) -> nx.Graph:
    require(0 < degree < n, "random_regular.degree", degree, f"above 0 and below {n} clients")
    require(degree * n % 2 == 0, "random_regular.degree", degree, f"even for {n} clients")
    return nx.random_regular_graph(degree, n, seed=seed)


def erdos_renyi(n: int, *, p: float = 0.5, seed: int = 0) -> nx.Graph:
    require(0 <= p <= 1, "erdos_renyi.p", p, "a probability, from 0 to 1")
    return nx.gnp_random_graph(n, p, seed=seed)


def torus(n: int) -> nx.Graph:
    rows = max(k for k in range(1, math.isqrt(n) + 1) if n % k == 0)
    grid = nx.grid_2d_graph(rows, n // rows, periodic=True)
    return nx.convert_node_labels_to_integers(grid, ordering="sorted")


GRAPHS: dict[str, Callable[..., nx.Graph]] = {
    "complete": complete,
    "ring": ring,
    "random_regular": random_regular,
    "erdos_renyi": erdos_renyi,
    "torus": torus,
}


def parse_graph(text: str) -> MakeGraph:
    """Return the function that makes the graph of n clients; raises ConfigError for no graph."""
    path = Path(text)
    if _is_file(path):
        return lambda n: _read(path, n)
    call = parse_call(text, GRAPHS, given=("n",), what="graph")
    return lambda n: call.function(n, **call.options)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long for a path
        return False


def _read(path: Path, n: int) -> nx.Graph:
    try:
        graph = nx.read_edgelist(path, nodetype=int, data=False)
    except (TypeError, ValueError, OSError) as error:
        raise ConfigError(f"graph={str(path)!r} is no edge list: {error}") from error
    graph.add_nodes_from(range(n))
    return graph
