"""Answer values around a point, along directions that everybody can make from a seed.

    query.probes:  x [d], first row r_i of each client  ->  values [n, q] at the points of a scheme,
                   or, for `answer = "slopes"`, the m slopes [n, m] that the scheme makes of them
    directions:    rows r_i .. r_i + m - 1 of an endless sequence of random orthonormal bases

Clients with the same first row ask at the same points, so the heterogeneity of their objectives
cancels in the mean of their answers; clients with rows of their own explore n times as many
directions. Server and clients make the directions from (seed, row): only x and one number go down
and q or m numbers up. fedzo's form of the shared seeds of Maritan, Dey & Schenato, "FedZeN", arXiv
2309.17174, and of FedKSeed. Cost: q queries (forward: m + 1, or m without the base; central: 2m).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clients.local import require_resolution, start_points
from fedzo.config import check_types, require, require_nonnegative, take_config
from fedzo.directions import basis_blocks
from fedzo.estimators import make_scheme
from fedzo.exchange import ClientState, Exchange
from fedzo.oracle import Oracle
from fedzo.surrogates.spatial import smooth_directions


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbesConfig:
    """Settings of probes: the difference scheme, its directions and radius, in units of x.

    lengthscale: above 0, x is a square image and directions are smooth over so many pixels.
    """

    estimator: Literal["forward", "central"] = "forward"
    num_directions: int = 20
    mu: float = 0.01
    lengthscale: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        require_nonnegative("lengthscale", self.lengthscale)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < float("inf"), "mu", self.mu, "a positive number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes(ProbesConfig):
    """What the server says beside: whether to ask at x too, and the key of the directions.

    answer: what is sent; slopes have no use for `base`.
    """

    base: bool = True
    answer: Literal["values", "slopes"] = "values"
    seed: int = 0
    problem: int = 0


def answer_probes(
    exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]
) -> tuple[dict[str, Tensor], Sequence[ClientState]]:
    """Ask every client around x along its rows; answers nothing when the budget is too small."""
    probes = take_config(Probes, exchange.config)
    require_resolution(exchange, probes.mu, oracle.cohort.dim**-0.5)
    x = start_points(exchange)
    scheme = make_scheme(probes.estimator)
    points = scheme.points(x, _directions(exchange, probes, oracle.cohort.dim).to(x), probes.mu)
    forward = probes.estimator == "forward"
    slopes = probes.answer == "slopes"
    if probes.base != forward and not slopes:
        points = points[:, 1:] if forward else torch.cat([x.unsqueeze(1), points], dim=1)
    if oracle.remaining < points.shape[1]:
        kind = x.dtype if slopes else torch.float64
        return {probes.answer: torch.empty(len(x), 0, dtype=kind)}, states
    told = oracle.value(points)
    return {
        probes.answer: scheme.slopes(told, probes.mu, None, x.dtype) if slopes else told
    }, states


def _directions(exchange: Exchange, probes: Probes, dim: int) -> Float[Tensor, "n m d"]:
    """Return every client's directions."""
    first, m = exchange.per_client["first_row"], probes.num_directions
    rough = basis_blocks(first, m, dim, seed=probes.seed, problem=probes.problem)
    return smooth_directions(rough, probes.lengthscale)
