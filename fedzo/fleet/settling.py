"""Who of those that were asked at once counts, and how long the server has waited."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedzo.fleet.devices import Spent
from fedzo.records.virtual_time import VirtualTime


@dataclass(frozen=True, slots=True)
class Until:
    """Who is enough, by position; not before `patience` times the seconds of the first answer."""

    is_enough: Callable[[Sequence[int]], bool]
    patience: float


@dataclass(frozen=True, slots=True)
class Settled:
    """What a call took, and of every exchange which jobs came too late or never [n]."""

    took: VirtualTime
    missed: Sequence[NDArray[np.bool_]]


def settle(
    parts: Sequence[Spent],
    deadline_s: float,
    *,
    enough: int = 0,
    failed: Sequence[NDArray[np.bool_]] = (),
    until: Until | None = None,
) -> Settled:
    """End exchanges made at once: at the n-th answer of all (`enough`, 0: all), or at the deadline.

    until: ends a single exchange where those who have answered are enough.

    An answer that is lost costs all of the deadline, unless enough others came: a server cannot
    know. failed: whose answer says that they have none [n], which is not one of the enough. The
    seconds of ways and work are means over the jobs that counted, and the rest of the call is
    waiting: for the slowest, or for nobody.
    """
    at = [np.where(spent.lost, math.inf, spent.total) for spent in parts]
    good = [times[~out] for times, out in zip(at, failed, strict=True)] if failed else at
    if until is not None and len(parts) == 1:
        seconds = _first_enough(at[0], failed[0] if failed else at[0] < 0, until, deadline_s)
    else:
        seconds = _end(_joined(at), _joined(good), enough, deadline_s)
    missed = [times > seconds for times in at]
    kept = [~out for out in missed]
    count = sum(int(one.sum()) for one in kept)

    def mean(name: str) -> float:
        whole = math.fsum(
            float(getattr(spent, name)[one].sum()) for spent, one in zip(parts, kept, strict=True)
        )
        return whole / count if count else 0.0

    down, compute, up = mean("down"), mean("compute"), mean("up")
    took = VirtualTime(
        seconds=seconds,
        down=down,
        compute=compute,
        up=up,
        waiting=max(0.0, seconds - down - compute - up),
        wasted=sum(int(out.sum()) for out in missed),
    )
    return Settled(took, missed)


def _first_enough(
    at: NDArray[np.float64], failed: NDArray[np.bool_], until: Until, deadline_s: float
) -> float:
    """Return when those who have answered are enough, or the last answer or the deadline."""
    good = np.sort(at[~failed & (at <= deadline_s)])
    if len(good):
        first = min(until.patience * float(good[0]), deadline_s)
        later: list[float] = good[good > first].tolist()
        for seconds in (first, *later):
            if until.is_enough(np.flatnonzero(~failed & (at <= seconds)).tolist()):
                return min(seconds, float(at.max()))
    return _end(_joined([at]), good, 0, deadline_s)


def _joined(times: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.sort(np.concatenate([np.empty(0), *times]))


def _end(
    at: NDArray[np.float64], good: NDArray[np.float64], enough: int, deadline_s: float
) -> float:
    """Return when a call ends whose messages come at these times, the good ones at those."""
    if 0 < enough <= len(good) and good[enough - 1] <= deadline_s:
        return float(good[enough - 1])
    return min(float(at[-1]), deadline_s) if len(at) else 0.0
