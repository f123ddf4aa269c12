"""A wave under way, whatever says when answers come: a virtual clock, or their arrival.

    mean staleness = (M - 1) / K with refill "arrival", for any durations;  M/K - 1 with "step"

Who is asked next is a function of the seed and of who is at work. A client works at most once on an
x. Shapes: a landed tensor [k, ...].

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022, algorithm
1. Differs from the paper: an answer that is lost occupies its place until the deadline.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedzo.fleet.job import Job
from fedzo.protocol.answers import NO_ANSWER
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.wave import Landed, Wave
from fedzo.randomness import stream

_TRIES = 200
"""Draws until the free clients are listed."""


@dataclass(slots=True)
class InFlight:
    """The jobs of one problem that have not landed, and how many there have been."""

    jobs: list[Job] = field(default_factory=list)
    number: int = 0


class Going(ABC):
    """One wave under way; subclasses say who can be reached, and when answers come.

    now: what the clock shows. wasted: answers that never came.
    """

    def __init__(self, flight: InFlight, wave: Wave) -> None:
        self._flight, self._wave = flight, wave
        self._now, self._left = wave.at_s, wave.queries
        self._asked: set[int] = set()
        self._began: list[tuple[Exchange, Replies]] = []
        self._landed_jobs: list[Job] = []
        self._wasted = 0

    def go(self) -> Landed:
        """Go on until so many answers have come, or nobody is at work any more."""
        jobs, wave, landed = self._flight.jobs, self._wave, self._landed_jobs
        self._fill()
        failures: dict[int, str] = {}
        misses, most = 0, 2 * wave.until + len(wave.first)
        while len(landed) < wave.until and jobs and misses < most:
            job = self._next()
            jobs.remove(job)
            if job.lost or job.failure:
                failures[job.client] = NO_ANSWER if job.lost else job.failure
                misses += 1
                self._wasted += job.lost
            else:
                landed.append(job)
            if wave.refill == "arrival" and len(landed) < wave.until:
                self._send(self._drawn(1))
        self._end()
        landed.sort(key=lambda one: (one.client, one.number))
        return self._landed(failures)

    @abstractmethod
    def _begin(self, jobs: Sequence[Job], *, at_once: bool) -> None:
        """Have the clients of jobs begin; at_once: these are all that a wave begins with."""

    @abstractmethod
    def _next(self) -> Job:
        """Return the job that ends next, with what its client has said."""

    @abstractmethod
    def _end(self) -> None:
        """Do what is left to be done at the end of a wave."""

    def _online(self, clients: Sequence[int]) -> Sequence[bool]:
        """Return which of these clients can be reached: all."""
        return [True] * len(clients)

    def _fill(self) -> None:
        """Send off as many as are missing; all are computed together."""
        first, jobs = self._wave.first, self._flight.jobs
        self._send(self._drawn(len(first) - len(jobs)) if jobs else first, at_once=True)

    def _drawn(self, count: int) -> list[int]:
        """Return clients that are free, can be reached, and have not had this x."""
        found: list[int] = []
        for more in range(count):
            taken = {job.client for job in self._flight.jobs} | self._asked | {*found}
            client = self._free(self._flight.number + more, taken)
            if client is not None:
                found.append(client)
        return found

    def _free(self, number: int, taken: Collection[int]) -> int | None:
        wave = self._wave
        generator = stream(wave.seed, "next", wave.moment.problem, number)
        for client in generator.integers(wave.num_clients, size=_TRIES).tolist():
            if client not in taken and self._online([client])[0]:
                return int(client)
        left = [client for client in range(wave.num_clients) if client not in taken]
        here = [c for c, on in zip(left, self._online(left), strict=True) if on]
        return here[int(generator.integers(len(here)))] if here else None

    def _send(self, clients: Sequence[int], *, at_once: bool = False) -> None:
        """Send clients off now, as many as the query budget is enough for."""
        each, flight = self._wave.queries_each, self._flight
        if self._left is not None and each:
            clients = clients[: self._left // each]
            self._left -= each * len(clients)
        version, first = self._wave.moment.round_index, flight.number
        jobs = [Job(first + i, client, version, self._now) for i, client in enumerate(clients)]
        flight.number += len(jobs)
        flight.jobs += jobs
        self._asked.update(clients)
        self._begin(jobs, at_once=at_once)

    def _landed(self, failures: dict[int, str]) -> Landed:
        jobs, now = self._landed_jobs, self._wave.moment.round_index
        names = jobs[0].tensors if jobs else ()
        counted = set(jobs[0].counts).intersection(*(job.counts for job in jobs)) if jobs else ()
        return Landed(
            clients=[job.client for job in jobs],
            staleness=torch.tensor([now - job.version for job in jobs], dtype=torch.int64),
            tensors={name: _stacked(jobs, name) for name in names},
            counts={name: [job.counts[name] for job in jobs] for name in sorted(counted)},
            oldest=min((job.version for job in self._flight.jobs), default=now + 1),
            failures=failures,
            began=self._began,
        )


def _stacked(jobs: Sequence[Job], name: str) -> Tensor:
    return torch.stack([job.tensors[name] for job in jobs])
