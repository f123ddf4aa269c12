"""Where a rule takes its gradients from: autograd, or values along directions of its own.

    exact:         told = grad f_i(x; B)                                    [n, d]
    zeroth_order:  told = slopes s_j of f_i(.; B) at x along u_1 .. u_m     [n, m]
                   gradient = (d / m) sum_j s_j u_j                         fedzo.bases

The directions are rows of random orthonormal bases, made from (seed, number): whoever knows the
number can make them again, so m slopes stand for d floats. A difference of two gradients uses the
same minibatch and the same directions at both points; with fresh ones its error does not shrink
with the distance of the points. With m = d the gradient is exact up to mu. Cost of one: one
gradient, or m + 1 queries (forward), 2 m (central), each on a whole minibatch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clients.local import LocalTraining, MinibatchConfig, part_of, require_resolution
from fedzo.bases import Blocks
from fedzo.config import require, take_config
from fedzo.estimators import make_scheme
from fedzo.exchange import Exchange
from fedzo.oracle import BoundsPolicy, NonFinitePolicy, Oracle


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientConfig(MinibatchConfig):
    """Settings of rules that take exact gradients or estimate them.

    gradient: exact, or zeroth_order: made of values by `estimator`; coordinate uses as many
    directions as dimensions. num_directions: a step and client, otherwise; anchors and miners use
    at most as many as dimensions. mu: smoothing radius, in units of x.
    """

    gradient: Literal["exact", "zeroth_order"] = "exact"
    estimator: Literal["forward", "central", "coordinate"] = "forward"
    num_directions: int = 20
    mu: float = 0.01
    non_finite: NonFinitePolicy = "fail"
    out_of_bounds: BoundsPolicy = "clip"

    def __post_init__(self) -> None:
        MinibatchConfig.__post_init__(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < float("inf"), "mu", self.mu, "a positive number")


class Gradients:
    """A cohort's source of gradients in one exchange; block k of directions is for its step k."""

    def __init__(
        self, config: GradientConfig, num_directions: int, exchange: Exchange, oracle: Oracle
    ) -> None:
        training = take_config(LocalTraining, exchange.config)
        self._exact = config.gradient == "exact"
        self._config, self._oracle = config, oracle
        self._blocks: Blocks | None = None
        self.num_queries = 0
        if not self._exact:
            self._scheme = make_scheme(config.estimator)
            dim = oracle.cohort.dim
            require_resolution(exchange, config.mu, dim**-0.5)
            wanted = dim if config.estimator == "coordinate" else num_directions
            self._blocks = Blocks(dim, wanted, training.seed, training.problem)
            self.num_queries = self._scheme.num_queries(self._blocks.size)
            self._first: Int[Tensor, " n"] = exchange.per_client["first_row"]

    def tell(
        self, points: Sequence[Float[Tensor, "n d"]], batch: Int[Tensor, "n b"] | None, step: int
    ) -> list[Float[Tensor, "n k"]]:
        """Return what there is to say of the gradient at each of the points.

        Slopes that could not be had are NaN: a difference with one of them must be left out.
        """
        part = part_of(self._oracle.cohort, batch)
        if self._blocks is None:
            return [self._oracle.gradient(x, of=part) for x in points]
        directions = self._blocks.directions(self._first, step).to(points[0])
        told = []
        for x in points:
            values = self._oracle.value(
                self._scheme.points(x, directions, self._config.mu), of=part
            )
            told.append(self._scheme.slopes(values, self._config.mu, None, x.dtype))
        return told

    def vectors(self, told: Float[Tensor, "n k"], step: int) -> Float[Tensor, "n d"]:
        """Return the gradients, or differences of them, behind what was told."""
        return told if self._blocks is None else self._blocks.combine(told, self._first, step)

    def affords(self, evaluations: int) -> bool:
        """Return whether the query budget allows that many evaluations at one point."""
        return self._oracle.remaining >= evaluations * self.num_queries

    def without_missing(self, told: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Return zeros in the place of slopes, or differences of slopes, that are missing."""
        return told if self._exact else told.masked_fill(told.isnan(), 0.0)

    @property
    def name(self) -> str:
        """What the answer is called: gradient or slopes."""
        return "gradient" if self._exact else "slopes"


def no_answer(x: Float[Tensor, "n d"]) -> Float[Tensor, "n 0"]:
    """Return what a client says whose budget is too small."""
    return torch.empty(len(x), 0, dtype=x.dtype)
