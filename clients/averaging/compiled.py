"""Local steps as one compiled program: of a scenario's stacked clients, or of equal modules.

torch compiles anew for every number of clients, so a smaller cohort of modules is filled up to the
largest one yet; rows do not depend on each other.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.module_cohort import ModuleCohort
from fedzo.objectives.stacked_modules import Program
from fedzo.objectives.traced_modules import RowLoss, row_loss, traced

Batches = Int[Tensor, "n t b"] | None


class CompiledLoop:
    """Compiles `loop(cohort, start, batches, *others)` when it is first called."""

    def __init__(self, loop: Callable[..., Tensor]) -> None:
        self._loop, self._compiled = loop, False
        self._losses: dict[Program, RowLoss] = {}
        self._rows: dict[Program, int] = {}

    def __call__(
        self, cohort: CohortObjective, start: Float[Tensor, "n d"], batches: Batches, *others: Any
    ) -> Float[Tensor, "n d"]:
        """Return what the loop does; raises ConfigError for clients that cannot be compiled."""
        if isinstance(cohort, ModuleCohort):
            return self._of_modules(cohort, start, batches, others)
        if hasattr(cohort, "objectives"):
            raise ConfigError(
                "client.compile=true needs stacked objectives or torch modules; these are asked one"
                " by one, so set it to false"
            )
        return self._called(cohort, start, batches, *others)

    def _of_modules(
        self, cohort: ModuleCohort, start: Float[Tensor, "n d"], batches: Batches, others: Any
    ) -> Float[Tensor, "n d"]:
        program = _one_program(cohort, batches)
        if program not in self._losses:
            self._losses[program] = row_loss(cohort.objectives[0])
        count = len(start)
        rows = self._rows[program] = max(count, self._rows.get(program, 0))
        filled = [*range(count), *[0] * (rows - count)]
        used = None if batches is None else batches[filled].flatten(1)
        stacked = traced([cohort.objectives[i] for i in filled], self._losses[program], used)
        if batches is not None:  # of the examples that are used
            each = torch.arange(batches[0].numel(), device=batches.device)
            batches = each.reshape(batches.shape[1:]).expand(rows, -1, -1)
        return self._called(stacked, start[filled], batches, *others)[:count]

    def _called(self, *arguments: Any) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # seconds, for who compiles

        if not self._compiled:
            self._loop, self._compiled = torch.compile(self._loop, fullgraph=True), True
        try:
            return self._loop(*arguments)
        except TorchDynamoException as error:
            reason = next(filter(None, str(error).splitlines()), type(error).__name__)
            raise ConfigError(
                f"client.compile=true: torch cannot compile these clients ({reason:.200}); set it"
                " to false"
            ) from error


def _one_program(cohort: ModuleCohort, batches: Batches) -> Program:
    """Return the program of all; raises ConfigError for modules that have none in common."""
    programs = cohort.programs_of()
    [first, *others] = {*programs}
    if others or first is None:
        raise ConfigError(
            "client.compile=true needs modules that differ in nothing but their tensors, without"
            " hooks or frozen parameters; set it to false"
        )
    if batches is None and len({*cohort.sizes.tolist()}) > 1:
        raise ConfigError(
            "client.compile=true needs as many examples of every client; give client.batch_size, or"
            " set client.compile=false"
        )
    return first
