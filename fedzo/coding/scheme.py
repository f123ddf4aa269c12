"""Who works on what in which round, so that every job can be decoded in time.

A job is the gradient at one x: job t begins in round t and is decoded in round t + delay. Each
worker has `slots` results to give of a job, each a combination of units of the data, and does
`per_round` of them in a round, of this job or of earlier ones; what is missing can be given again.
What has arrived of a job is a table [workers, slots].

    load = share of all data that a worker goes through in a round
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Table = NDArray[np.bool_]
Task = tuple[int, int]
"""A job, and the slot of its result."""


class Scheme(ABC):
    """A way to code jobs.

    delay: rounds until a job is decoded; units: equal parts of the data.
    """

    workers: int
    delay: int
    slots: int
    per_round: int
    units: int
    load: Fraction

    @abstractmethod
    def pieces(self, worker: int, slot: int) -> tuple[NDArray[np.int64], Floats]:
        """Return the units of a result, and what each counts in it."""

    @abstractmethod
    def assign(self, now: int, arrived: Mapping[int, Table]) -> list[list[Task]]:
        """Return the tasks of each worker in a round; arrived: job -> what has come before it."""

    @abstractmethod
    def decode(self, arrived: Table) -> Floats | None:
        """Return what each result of a job counts [workers, slots], None where too few came."""

    def empty(self) -> Table:
        """Return the table of a job of which nothing has arrived."""
        return np.zeros((self.workers, self.slots), dtype=bool)

    def after(
        self,
        arrived: Mapping[int, Table],
        tasks: Sequence[Sequence[Task]],
        answered: Sequence[int],
    ) -> dict[int, Table]:
        """Return what has arrived when these workers have also answered."""
        fresh = {job: table.copy() for job, table in arrived.items()}
        for worker in answered:
            for job, slot in tasks[worker]:
                fresh.setdefault(job, self.empty())[worker, slot] = True
        return fresh

    def is_feasible(self, now: int, arrived: Mapping[int, Table]) -> bool:
        """Whether every job up to `now` would be decoded in time if all answered from now on.

        arrived: after round `now`. A master that goes on with less could not be helped later.
        """
        pending = [job for job in range(max(1, now - self.delay), now + 1)]
        known: dict[int, Table] = {job: arrived.get(job, self.empty()) for job in pending}
        for later in range(now, now + self.delay + 1):
            if later > now:
                tasks = self.assign(later, known)
                known = self.after(known, tasks, range(self.workers))
            due = later - self.delay
            if due in pending and self.decode(known[due]) is None:
                return False
        return True
