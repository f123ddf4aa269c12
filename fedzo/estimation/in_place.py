"""A module of any size, asked at x + alpha u and moved along estimates, in place.

    c_i = [f(x + mu u_i) - f(x - mu u_i)] / (2 mu),   x <- x - lr (1/m) sum_i c_i u_i

Malladi, Gao, Nichani, Damian, Lee, Chen & Arora, "Fine-Tuning Language Models with Just Forward
Passes" (MeZO), NeurIPS 2023, algorithm 1, with any difference scheme of
fedzo.estimation.schemes. Memory above that of a forward pass: copies of the parameters that one
operation reads (a weight and its bias) and 4 MiB for drawing, no vector of length d; measured by
benchmarks/in_place.py. Cost of a direction: the scheme's forward passes, each with one draw of the
direction, and one for the step.

Differs from the paper: probing does not write to x. Each tensor is moved where an operation reads
it (fedzo.estimation.shifted_reads), so `restore_` is exact in every type and costs nothing, also
after an exception; adding mu u, -2 mu u and mu u drifts, by 12 % in 1,000 steps in bfloat16.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.estimation.direction import Direction
from fedzo.estimation.estimate import Estimate
from fedzo.estimation.kept_inputs import KeptInputs, keeping_inputs
from fedzo.estimation.losses import one_number
from fedzo.estimation.packed import packed
from fedzo.estimation.place import Place, Term, add_terms_
from fedzo.estimation.schemes import Scheme, gradient_coefficients
from fedzo.estimation.shifted_reads import ask_moved
from fedzo.estimation.stacked_asks import ask_stacked
from fedzo.estimation.tangents import ask_tangent
from fedzo.objectives.modules import ModuleObjective, trained_parameters
from fedzo.objectives.objective import Objective


@dataclass(slots=True)
class InPlace:
    """An objective and the place where its x is.

    `ask` returns the objective's value at what the place holds, which are parameters of the module
    where there is one. stacked: whether the places of a step are asked at once
    (fedzo.estimation.stacked_asks). Two of them on one module may be
    asked by turns, not at once.
    """

    place: Place
    ask: Callable[[], Tensor]
    module: nn.Module | None = None
    stacked: bool = False
    _terms: list[Term] = field(default_factory=list)

    @classmethod
    def of_module(cls, objective: ModuleObjective) -> "InPlace":
        """Return the objective with x in the module itself: steps train the module."""
        return cls(trained_parameters(objective.module), objective.own_value, objective.module)

    @classmethod
    def of_vector(cls, objective: Objective, x: Float[Tensor, " d"]) -> "InPlace":
        """Return an objective of torch operations with x in this vector, which steps move."""
        return cls([x], lambda: objective.value(x))

    @property
    def dim(self) -> int:
        return sum(tensor.numel() for tensor in self.place)

    def shift_(self, key: Direction, alpha: float) -> None:
        """Ask at alpha u beside where it is asked now, u the key's direction."""
        self._terms.append((key, alpha))

    def restore_(self) -> None:
        """Ask at x again, which is what it was, bit for bit."""
        self._terms.clear()

    def loss(self) -> float:
        """Return the objective at x plus all shifts since the last `restore_`."""
        with torch.no_grad():
            told = ask_moved(self.ask, (self.place, self._terms))
        return float(one_number(told))

    def told_at(self, terms: Sequence[Term]) -> Float[Tensor, "*k"]:
        """Return all numbers that `ask` answers at x plus terms."""
        with torch.no_grad():
            return ask_moved(self.ask, (self.place, terms))

    def rows(
        self, directions: Sequence[Direction], scheme: Scheme, mu: float
    ) -> Float[Tensor, "q k"]:
        """Return `told_at` where the scheme asks it, along directions from x."""
        ends = _ends(directions, scheme, mu)
        return torch.stack([self.told_at(end) for end in ends]).double()

    def at(self, terms: Sequence[Term]) -> float:
        """Return the objective at x plus terms."""
        self.restore_()
        self._terms.extend(terms)
        try:
            return self.loss()
        finally:
            self.restore_()

    def tangent(self, u: Direction) -> tuple[float, float]:
        """Return the objective at x and its exact slope along u, by forward differentiation.

        Raises ConfigError where nothing is known of the module.
        """
        if self.module is None:
            raise ConfigError("exact slopes need the module; give it instead of its parameters")
        return ask_tangent(self.ask, self.module, self.place, u)

    def tangents(self, directions: Sequence[Direction]) -> list[tuple[float, float]]:
        """Return `tangent` of each direction."""
        return [self.tangent(u) for u in directions]

    def asking(self, other: Callable[[], Tensor]) -> "InPlace":
        """Return the same place, where something else is asked."""
        return InPlace(self.place, other, self.module, self.stacked)

    def values(
        self,
        directions: Sequence[Direction],
        scheme: Scheme,
        mu: float,
        *,
        beside: Sequence[Term] = (),
    ) -> Float[Tensor, " q"]:
        """Return the objective where the scheme asks it, along directions from x plus terms."""
        moves = [[*beside, *end] for end in _ends(directions, scheme, mu)]
        return torch.tensor(self.asked_at(moves), dtype=torch.float64)

    def asked_at(self, moves: Sequence[Sequence[Term]]) -> list[float]:
        """Return the objective at x plus the terms of each move."""
        if not self.stacked:
            with keeping_inputs(self.module, self.place, moves) as kept:
                return [self._with_kept(kept, terms) for terms in moves]
        if self.module is None:
            raise ConfigError("stacked=True needs the module; give it instead of its parameters")
        return ask_stacked(self.ask, self.module, self.place, moves)

    def _with_kept(self, kept: KeptInputs | None, terms: Sequence[Term]) -> float:
        if kept is not None:
            kept.move_from(kept.first_moved(terms))
        return self.at(terms)

    def estimate(self, keys: Sequence[Direction], scheme: Scheme, mu: float) -> Estimate:
        """Return the gradient that values along the keys' directions stand for.

        A direction whose values are NaN has no part in it. A scheme that remembers values needs
        `values` and its own `slopes`.
        """
        require(not scheme.remembers, "scheme", scheme, "one without memory")
        along = [packed(key) for key in keys]
        slopes = scheme.slopes(self.values(along, scheme, mu).unsqueeze(0), mu, None)
        return Estimate(along, gradient_coefficients(slopes, 1.0)[0])

    def step_(self, terms: Sequence[Term]) -> None:
        """Move x itself."""
        add_terms_(self.place, terms)


def _ends(directions: Sequence[Direction], scheme: Scheme, mu: float) -> list[list[Term]]:
    """Return the terms that lead from x to each place where a scheme asks."""
    offsets = scheme.offsets(len(directions))
    return [[(directions[i], side * mu)] if side else [] for i, side in offsets]
