"""Who of those that were asked at once counts, and how long the server has waited."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedzo.fleet.devices import Spent
from fedzo.records.virtual_time import VirtualTime


@dataclass(frozen=True, slots=True)
class Settled:
    """What a call took, and of every exchange which jobs came too late or never [n]."""

    took: VirtualTime
    missed: Sequence[NDArray[np.bool_]]


def settle(parts: Sequence[Spent], enough: Sequence[int], deadline_s: float) -> Settled:
    """End exchanges made at once: each at its n-th answer (`enough`, 0: all), or at the deadline.

    An answer that is lost costs all of the deadline, unless enough others came: a server cannot
    know. The seconds of ways and work are means over the jobs that counted, and the rest of the
    call is waiting: for the slowest, or for nobody.
    """
    ends, missed = [], []
    for spent, wanted in zip(parts, enough, strict=True):
        at = np.where(spent.lost, math.inf, spent.total)
        end = _end(at, wanted, deadline_s)
        ends.append(end)
        missed.append(at > end)
    kept = [~out for out in missed]
    count = sum(int(one.sum()) for one in kept)
    seconds = max(ends, default=0.0)

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


def _end(at: NDArray[np.float64], wanted: int, deadline_s: float) -> float:
    """Return when an exchange ends whose answers come at these times."""
    in_time = np.sort(at[at <= deadline_s])
    if 0 < wanted <= len(in_time):
        return float(in_time[wanted - 1])
    if len(in_time) == len(at):
        return float(in_time[-1]) if len(at) else 0.0
    return deadline_s
