"""Modules as a cohort: those of equal structure are asked together."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.failure import failure_of
from fedzo.objectives.looped_cohort import LoopedCohort, LoopedFiniteSums
from fedzo.objectives.modules import ModuleObjective
from fedzo.objectives.objective import Objective
from fedzo.objectives.stacked_modules import (
    Modules,
    Program,
    Programs,
    losses_of,
    program_in,
)


@dataclass(frozen=True, slots=True)
class ModuleCohort(LoopedFiniteSums):
    """Modules, of which those of equal structure are asked together, to the same bits as alone.

    batches: the examples of each client that are asked, as in `minibatch`; None for all.
    """

    objectives: Sequence[ModuleObjective]
    batches: Int[Tensor, "n b"] | None = None
    programs: Programs = field(default_factory=Programs)

    @property
    def sizes(self) -> Int[Tensor, " n"]:
        return torch.tensor(Modules(self.objectives, self.batches).counts())

    def value(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]:
        if not self.failures and self.asking.pool is None:
            modules = Modules(self.objectives, self.batches)
            try:
                values = losses_of(modules, x, self.programs)
            except (Exception, SystemExit) as error:  # someone's code raises, and will alone
                failure_of(error)  # raises again what is meant for the whole process
                return self.one_by_one().value(x)
            if values.requires_grad == x.requires_grad and not values.is_complex():
                return values.double()
        return self.one_by_one().value(x)

    def value_in_graph(self, x: Float[Tensor, "n 1 d"]) -> Float[Tensor, "n 1"]:
        """Return values that can be differentiated any number of times, each client by itself."""

        def ask(position: int, objective: Objective) -> Tensor:
            assert isinstance(objective, ModuleObjective)
            return objective.loss_at(x[position, 0]).unsqueeze(0)

        return self.one_by_one().told_by(ask, 1)

    def programs_of(self) -> list[Program | None]:
        """Return the program in which each client is a row; None for one that has none."""
        return [program_in(self.programs, objective) for objective in self.objectives]

    def told_by(
        self, ask: Callable[[int, Objective], Tensor], queries: int
    ) -> Float[Tensor, "n q"]:
        return self.one_by_one().told_by(ask, queries)

    def minibatch(self, indices: Int[Tensor, "n b"]) -> "ModuleCohort":
        part = copy.copy(self)  # the same clients, which have been compared
        object.__setattr__(part, "batches", indices)
        return part

    def one_by_one(self) -> LoopedCohort:
        """Return the same clients, asked one after the other, each with the examples asked."""
        every = (self.objectives, self.failures, self.unasked, self.asking)
        whole = LoopedFiniteSums(*every)
        return whole if self.batches is None else whole.minibatch(self.batches)
