"""Gradient coding with and without time: GC, SR-SGC and M-SGC.

    GC(s)               load (s + 1) / n, delay 0: any s stragglers a round
    SR-SGC(B, W, l)     load (s + 1) / n, delay B, s = ceil(B l / (W - 1 + B)), B divides W - 1
    M-SGC(B, W, l)      load (l + 1) (W - 1 + B) / (n (B + (W - 1) (l + 1))), delay W - 2 + B

The latter two bear bursts: in any W rounds at most l workers straggle, each within B rounds in a
row. Krishnan et al., "Sequential Gradient Coding For Straggler Mitigation", ICLR 2023, sections 3.1
and 3.2; what they do not bear has to be waited for (Scheme.is_feasible says when). Differs from
their code, which bears s - 1 stragglers a round where s are meant.
"""

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedzo.coding.gradient_code import GradientCode
from fedzo.coding.scheme import Floats, Scheme, Table, Task
from fedzo.config import require


class GC(Scheme):
    """A gradient code in each round."""

    def __init__(self, workers: int, stragglers: int) -> None:
        self.code = GradientCode(workers, stragglers)
        self.workers, self.units, self.delay = workers, workers, 0
        self.slots = self.per_round = 1
        self.load = Fraction(stragglers + 1, workers)

    def pieces(self, worker: int, slot: int) -> tuple[NDArray[np.int64], Floats]:
        units = self.code.parts_of(worker)
        return units, self.code.matrix[worker, units]

    def assign(self, now: int, arrived: Mapping[int, Table]) -> list[list[Task]]:
        return [[(now, 0)] for _ in range(self.workers)]

    def decode(self, arrived: Table) -> Floats | None:
        live = np.flatnonzero(arrived[:, 0]).tolist()
        found = self.code.decode(live)
        if found is None:
            return None
        weights = np.zeros((self.workers, 1))
        weights[live, 0] = found
        return weights


class SRSGC(GC):
    """A gradient code, and selective repetition of what was missing B rounds ago."""

    def __init__(self, workers: int, *, burst: int, window: int, stragglers: int) -> None:
        _check_bursts(workers, burst, window, stragglers)
        whole = (window - 1) % burst == 0
        require(whole, "window", window, f"one more than a multiple of burst={burst}")
        least = math.ceil(burst * stragglers / (window - 1 + burst))
        super().__init__(workers, min(least, workers - 1))
        self.delay = burst

    def assign(self, now: int, arrived: Mapping[int, Table]) -> list[list[Task]]:
        tasks: list[list[Task]] = super().assign(now, arrived)
        old = now - self.delay
        if old >= 1:
            missing = np.flatnonzero(~arrived.get(old, self.empty())[:, 0])
            for worker in missing[: max(0, len(missing) - self.code.stragglers)].tolist():
                tasks[worker] = [(old, 0)]
        return tasks


class MSGC(Scheme):
    """Uncoded parts that are repeated where they were missing, and coded ones beside them.

    Slots 0 .. W - 2 are a worker's own parts, the B after them its shares of coded groups. Where
    everybody may straggle (stragglers = workers) nothing is coded.
    """

    def __init__(self, workers: int, *, burst: int, window: int, stragglers: int) -> None:
        _check_bursts(workers, burst, window, stragglers)
        least = f"at least 2 with burst={burst}"
        require(window >= 2, "window", window, least)
        self.workers, self.burst, self.own = workers, burst, window - 1
        coded = stragglers < workers
        self.code = GradientCode(workers, stragglers) if coded else None
        self.slots = self.own + (burst if coded else 0)
        self.per_round, self.delay = self.own + burst, window - 2 + burst
        self._size = stragglers + 1 if coded else 1
        self.units = workers * (self.own * self._size + (burst if coded else 0))
        self.load = Fraction(self.per_round * self._size, self.units)

    def pieces(self, worker: int, slot: int) -> tuple[NDArray[np.int64], Floats]:
        if slot < self.own:
            first = (worker * self.own + slot) * self._size
            return np.arange(first, first + self._size), np.ones(self._size)
        assert self.code is not None
        parts = self.code.parts_of(worker)
        before = self.workers * (self.own * self._size + slot - self.own)
        return before + parts, self.code.matrix[worker, parts]

    def assign(self, now: int, arrived: Mapping[int, Table]) -> list[list[Task]]:
        tasks: list[list[Task]] = [[] for _ in range(self.workers)]
        for place in range(self.per_round):
            job = now - place
            table = arrived.get(job, self.empty()) if job >= 1 else None
            if table is None:
                continue
            for worker in range(self.workers):
                slot = self._slot(place, table[worker])
                if slot is not None:
                    tasks[worker].append((job, slot))
        return tasks

    def decode(self, arrived: Table) -> Floats | None:
        if not arrived[:, : self.own].all():
            return None
        weights = np.zeros(arrived.shape)
        weights[:, : self.own] = 1.0
        for slot in range(self.own, self.slots):
            assert self.code is not None
            live = np.flatnonzero(arrived[:, slot]).tolist()
            found = self.code.decode(live)
            if found is None:
                return None
            weights[live, slot] = found
        return weights

    def _slot(self, place: int, arrived: Table) -> int | None:
        """Return what a worker does of a job that began `place` rounds ago; None is nothing."""
        if place < self.own:
            return place
        missing = np.flatnonzero(~arrived[: self.own])
        if len(missing):
            return int(missing[0])
        return place if self.code is not None else None


def _check_bursts(workers: int, burst: int, window: int, stragglers: int) -> None:
    require(burst >= 1, "burst", burst, "at least 1")
    require(window > burst, "window", window, f"above burst={burst}")
    allowed = f"from 0 to the workers, {workers}"
    require(0 <= stragglers <= workers, "stragglers", stragglers, allowed)
