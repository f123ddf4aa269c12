"""Places that keep what they were told, or tell what was kept.

A step depends on x, on keys, and on the values that it was told. So whoever has these values takes
the same steps without asking anybody: the log of a run is the list of its values.
"""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from fedzo.errors import CheckpointError
from fedzo.estimation.direction import Direction
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.place import Place, Term


class Asked(InPlace):
    """A place that is asked, and keeps the answers in `told`, in their order."""

    def __init__(
        self,
        place: Place,
        ask: Callable[[], Tensor],
        module: nn.Module | None,
        told: list[float] | None = None,
        stacked: bool = False,
    ) -> None:
        super().__init__(place, ask, module, stacked)
        self.told = [] if told is None else told
        self.tangents = 0

    def at(self, terms: Sequence[Term]) -> float:
        self.told.append(super().at(terms))
        return self.told[-1]

    def asked_at(self, moves: Sequence[Sequence[Term]]) -> list[float]:
        found = super().asked_at(moves)
        if self.stacked:
            self.told.extend(found)
        return found

    def tangent(self, u: Direction) -> tuple[float, float]:
        found = super().tangent(u)
        self.told.extend(found)
        self.tangents += 1
        return found

    def asking(self, other: Callable[[], Tensor]) -> "Asked":
        return Asked(self.place, other, self.module, self.told, self.stacked)


class Told(InPlace):
    """A place that nobody asks: the answers are these, in this order."""

    def __init__(self, place: Place, answers: Sequence[float] | Iterator[float]) -> None:
        super().__init__(place, _nobody)
        self._answers = iter(answers)

    def at(self, terms: Sequence[Term]) -> float:
        return next(self._answers)

    def tangent(self, u: Direction) -> tuple[float, float]:
        return next(self._answers), next(self._answers)

    def asking(self, other: Callable[[], Tensor]) -> "Told":
        return self


def _nobody() -> Tensor:
    raise CheckpointError("a log is replayed without asking")
