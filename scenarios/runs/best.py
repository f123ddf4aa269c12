"""The best x of a problem: where F, judged by as many as must, was lowest; the first of equals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fedzo.records.checkpoint import Checkpoint
from fedzo.records.history import RoundRecord
from strategies.core.abilities import can
from strategies.core.driver import Snapshot
from strategies.core.rounds import IsInPlace

Solution = Float[Tensor, "d *row"]
"""Where a run is: x, or in place the log that leads to it, which may be rows."""


@dataclass(frozen=True, slots=True)
class Best:
    """The lowest F of a problem, in which round, and x there.

    x is None where a version of fedzo that kept none has run that round.
    """

    round_index: int
    value: float
    x: Solution | None


class BestSoFar:
    """A callback that holds the best of the problem at hand; `best` is None while nobody judged."""

    def __init__(self, best: Best | None = None) -> None:
        self.best = best

    def __call__(self, snapshot: Snapshot) -> None:
        record, value = snapshot.record, snapshot.record.whole_value
        if value is None or math.isnan(value):
            return
        if self.best is None or value < self.best.value:
            self.best = Best(record.round_index, value, position_of(snapshot.state))


def position_of(state: Any) -> Solution:
    """Return x of a state; in place, the log that leads there."""
    return state.log if can(state, IsInPlace) else state.x


def pack_bests(bests: Sequence[Best | None]) -> Checkpoint:
    """Name what a checkpoint holds of the best of every problem."""
    tensors = {
        f"best.{k}": best.x
        for k, best in enumerate(bests)
        if best is not None and best.x is not None
    }
    told = [None if best is None else [best.round_index, best.value] for best in bests]
    return Checkpoint(tensors, {"bests": told})


def unpack_bests(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any], records: Sequence[RoundRecord]
) -> list[Best | None]:
    """Return what `pack_bests` named; of a checkpoint before it, the rounds without their x."""
    if "bests" not in facts:
        return _bests_of(records)
    return [
        None if told is None else Best(int(told[0]), float(told[1]), tensors.get(f"best.{k}"))
        for k, told in enumerate(facts["bests"])
    ]


def _bests_of(records: Sequence[RoundRecord]) -> list[Best | None]:
    """Return the best of every problem, as far as a history tells it."""
    bests: dict[int, Best | None] = {}
    for record in records:
        value, best = record.whole_value, bests.setdefault(record.problem, None)
        if value is not None and not math.isnan(value) and (best is None or value < best.value):
            bests[record.problem] = Best(record.round_index, value, None)
    return list(bests.values())
