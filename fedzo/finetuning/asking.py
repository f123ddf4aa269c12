"""Places that keep what they were told, or tell what was kept.

A step depends on x, on keys, and on the values that it was told. So whoever has these values takes
the same steps without asking anybody: the log of a run is the list of its values.
"""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from fedzo.errors import CheckpointError
from fedzo.estimation.direction import Direction
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.place import Place, Term
from fedzo.finetuning.parallel import Parallel


class Asked(InPlace):
    """A place that is asked, and keeps the answers in `told`, in their order.

    parallel: the processes that ask together, each of which is told all answers; None for this one.
    """

    def __init__(
        self, place: InPlace, parallel: Parallel | None = None, told: list[float] | None = None
    ) -> None:
        super().__init__(place.place, place.ask, place.module, place.stacked)
        self.told = [] if told is None else told
        self.with_tangents = 0
        self.asked_another = False
        """Whether something else than the batch's loss was asked for, such as that of all."""
        self._own, self._parallel = place, parallel

    def at(self, terms: Sequence[Term]) -> float:
        return self.asked_at([terms])[0]

    def asked_at(self, moves: Sequence[Sequence[Term]]) -> list[float]:
        def ask(mine: Sequence[int]) -> list[float]:
            return self._own.asked_at([moves[i] for i in mine])

        found = self._shared(len(moves), ask)
        self.told.extend(found)
        return found

    def tangent(self, u: Direction) -> tuple[float, float]:
        return self.tangents([u])[0]

    def tangents(self, directions: Sequence[Direction]) -> list[tuple[float, float]]:
        def ask(mine: Sequence[int]) -> list[float]:
            return [number for i in mine for number in self._own.tangent(directions[i])]

        found = self._shared(len(directions), ask, width=2)
        self.told.extend(found)
        self.with_tangents += len(directions)
        return list(zip(found[::2], found[1::2], strict=True))

    def asking(self, other: Callable[[], Tensor]) -> "Asked":
        self.asked_another = True
        return Asked(self._own.asking(other), self._parallel, self.told)

    def _shared(
        self, count: int, ask: Callable[[Sequence[int]], list[float]], *, width: int = 1
    ) -> list[float]:
        if self._parallel is None:
            return ask(range(count))
        return self._parallel.values(count, ask, width=width)


class Told(InPlace):
    """A place that nobody asks: the answers are these, in this order."""

    def __init__(self, place: Place, answers: Sequence[float] | Iterator[float]) -> None:
        super().__init__(place, _nobody)
        self._answers = iter(answers)

    def at(self, terms: Sequence[Term]) -> float:
        return self._next()

    def tangent(self, u: Direction) -> tuple[float, float]:
        return self._next(), self._next()

    def asking(self, other: Callable[[], Tensor]) -> "Told":
        return self

    def _next(self) -> float:
        answer = next(self._answers, None)
        if answer is None:
            raise CheckpointError(
                "a step of the log has fewer values than its method asks for, so it is of another"
                " release, or damaged; take one that was saved whole"
            )
        return answer


def _nobody() -> Tensor:
    raise CheckpointError("a log is replayed without asking")
