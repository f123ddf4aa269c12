"""Where a rule takes its gradients from: autograd, or values along directions of its own.

    exact:         told = grad f_i(x; B)                                    [n, d]
    zeroth_order:  told = slopes s_j of f_i(.; B) at x along u_1 .. u_m     [n, m]
                   gradient = (d / m) sum_j s_j u_j                         fedzo.estimation.bases

The directions are rows of random orthonormal bases, made from (seed, number): whoever knows the
number can make them again, so m slopes stand for d floats. A difference of two gradients uses the
same minibatch and the same directions at both points; with fresh ones its error does not shrink
with the distance of the points. With m = d the gradient is exact up to mu. Cost of one: one
gradient, or m + 1 queries (forward), 2 m (central), each on a whole minibatch.
"""

import functools
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from clients.core.local import part_of, require_resolution
from fedzo.estimation.bases import Blocks
from fedzo.estimation.schemes import Differences
from fedzo.protocol.questions.anchored import Anchored, AnchoredQuestion
from fedzo.runtime.local import Clients


class Gradients:
    """A cohort's source of gradients in one exchange; block k of directions is for its step k."""

    def __init__(self, question: AnchoredQuestion[Any], clients: Clients) -> None:
        self._config, self._oracle = question.settings, clients.oracle
        self._blocks: Blocks | None = None
        self.num_queries = 0
        if not self._config.exact:
            require_resolution(clients, question.x, self._config.mu, len(question.x) ** -0.5)
            self._differences = Differences.named(self._config.estimator, self._config.mu)
            self._blocks = question.blocks(seed=clients.seed, problem=clients.moment.problem)
            self.num_queries = self._differences.scheme.num_queries(self._blocks.size)
            assert question.first_row is not None
            self._first: Int[Tensor, " n"] = question.first_row

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
        ask = functools.partial(self._oracle.value, of=part)
        return [self._differences.along(directions, x, ask) for x in points]

    def vectors(self, told: Float[Tensor, "n k"], step: int) -> Float[Tensor, "n d"]:
        """Return the gradients, or differences of them, behind what was told."""
        return told if self._blocks is None else self._blocks.combine(told, self._first, step)

    def affords(self, evaluations: int) -> bool:
        """Return whether the query budget allows that many evaluations at one point."""
        return self._oracle.remaining >= evaluations * self.num_queries

    def without_missing(self, told: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Return zeros in the place of slopes, or differences of slopes, that are missing."""
        return told if self._blocks is None else told.masked_fill(told.isnan(), 0.0)

    def answer(
        self, told: Float[Tensor, "n k"], variance: Float[Tensor, "n v"] | None = None
    ) -> Anchored:
        """Return what the client says: a gradient, or slopes."""
        if self._blocks is None:
            return Anchored(gradient=told, variance=variance)
        return Anchored(slopes=told, variance=variance)
