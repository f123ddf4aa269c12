"""Jobs in flight: an event simulation whose clients are computed late, together, and once.

    next event = the job with the least (end, number)
    mean staleness = (M - 1) / K with refill "arrival", for any durations;  M/K - 1 with "step"

Who is asked next, how long a job takes and whether it is lost are functions of the seed, the client
and the round in which it was asked, so nothing depends on what is computed together. A job's time
follows from what its client counts: it is computed at once where nobody knows how long the client
takes, and else with all others of its round, at the end of the wave at the latest. A client works
at most once on an x. Shapes: a landed tensor [k, ...].

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022, algorithm
1. Differs from the paper: an answer that is lost occupies its place until the deadline.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fedzo.fleet.devices import DAY_S, ONLINE_S, Fleet
from fedzo.fleet.job import Job, from_tensors, to_tensors
from fedzo.fleet.jobs import Jobs, jobs_of
from fedzo.protocol.answers import NO_ANSWER
from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.wave import Landed, Wave
from fedzo.randomness import stream
from fedzo.records.virtual_time import VirtualTime

Perform = Callable[[Exchange], Replies]
_TRIES = 200
"""Draws until the free clients are listed."""
_COUNTED = ("down", "up", "queries", "gradients", "examples")


class Flight:
    """The jobs of one problem, all of them computed between two waves.

    known: client -> what its last job counted, by which the next one's time is known beforehand.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.jobs, self.number = fleet, list[Job](), 0
        self.known: dict[int, tuple[float, ...]] = {}

    def pending(self) -> ClientState:
        """Return all that is to be remembered as tensors; nothing before the first job."""
        if not self.number:
            return {}
        known = [[float(client), *row] for client, row in sorted(self.known.items())]
        table = torch.tensor(known, dtype=torch.float64).reshape(-1, 1 + len(_COUNTED))
        jobs = sorted(self.jobs, key=lambda job: job.number)
        return {"number": torch.tensor(self.number), "known": table, **to_tensors(jobs)}

    def restore(self, state: ClientState) -> None:
        """Put back what `pending` gave; nothing begins afresh."""
        self.jobs = from_tensors(state)
        self.number = int(state["number"]) if state else 0
        rows = state["known"].tolist() if state else []
        self.known = {int(client): tuple(row) for client, *row in rows}

    def wave(self, wave: Wave, perform: Perform, timeout_s: float) -> tuple[Landed, VirtualTime]:
        """Go on until so many answers have come, or nobody is at work any more."""
        return _Going(self, wave, perform, timeout_s).go()


class _Going:
    """One wave under way."""

    def __init__(self, flight: Flight, wave: Wave, perform: Perform, timeout_s: float) -> None:
        self._flight, self._wave, self._perform = flight, wave, perform
        self._timeout_s, self._now = timeout_s, wave.at_s
        self._asked: set[int] = set()
        self._open: list[Job] = []
        self._began: list[tuple[Exchange, Replies]] = []
        self._left, self._idle = wave.queries, 0.0

    def go(self) -> tuple[Landed, VirtualTime]:
        flight, wave = self._flight, self._wave
        self._fill()
        landed: list[Job] = []
        failures: dict[int, str] = {}
        misses, wasted, most = 0, 0, 2 * wave.until + len(wave.first)
        while len(landed) < wave.until and flight.jobs and misses < most:
            job = min(flight.jobs, key=lambda one: one.key)
            flight.jobs.remove(job)
            self._now = job.end
            if not job.computed:
                self._compute(self._open)
            if job.lost or job.failure:
                failures[job.client] = NO_ANSWER if job.lost else job.failure
                misses, wasted = misses + 1, wasted + job.lost
            else:
                landed.append(job)
            if wave.refill == "arrival" and len(landed) < wave.until:
                self._send(self._drawn(1))
        self._compute(self._open)
        landed.sort(key=lambda one: (one.client, one.number))
        return self._landed(landed, failures), self._took(landed, wasted)

    def _fill(self) -> None:
        """Send off as many as are missing; all are computed together.

        Where nobody is at work and nobody can be reached, the server looks again every ten minutes,
        for a day.
        """
        first, jobs = self._wave.first, self._flight.jobs
        if jobs:
            self._send(self._drawn(len(first) - len(jobs)), at_once=True)
            return
        for _ in range(int(DAY_S // ONLINE_S)):
            here = self._flight.fleet.online(first, self._now)
            found = [c for c, there in zip(first, here, strict=True) if there]
            found = found or self._drawn(len(first))
            if found:
                self._send(found, at_once=True)
                return
            self._now += ONLINE_S
            self._idle += ONLINE_S

    def _drawn(self, count: int) -> list[int]:
        """Return clients that are free, can be reached, and have not had this x."""
        found: list[int] = []
        for more in range(count):
            taken = {job.client for job in self._flight.jobs} | self._asked | {*found}
            client = self._free(self._flight.number + more, taken)
            if client is not None:
                found.append(client)
        return found

    def _free(self, number: int, taken: set[int]) -> int | None:
        wave, fleet = self._wave, self._flight.fleet
        generator = stream(wave.seed, "next", wave.moment.problem, number)
        for client in generator.integers(wave.num_clients, size=_TRIES).tolist():
            if client not in taken and bool(fleet.online([client], self._now)[0]):
                return int(client)
        left = [client for client in range(wave.num_clients) if client not in taken]
        here = [c for c, on in zip(left, fleet.online(left, self._now), strict=True) if on]
        return here[int(generator.integers(len(here)))] if here else None

    def _send(self, clients: Sequence[int], *, at_once: bool = False) -> None:
        """Send clients off now, as many as the query budget is enough for."""
        each = self._wave.queries_each
        if self._left is not None and each:
            clients = clients[: self._left // each]
            self._left -= each * len(clients)
        version = self._wave.moment.round_index
        first = self._flight.number
        jobs = [Job(first + i, client, version, self._now) for i, client in enumerate(clients)]
        self._flight.number += len(jobs)
        self._asked.update(clients)
        self._flight.jobs += jobs
        unknown = [job for job in jobs if at_once or job.client not in self._flight.known]
        self._open += [job for job in jobs if job not in unknown]
        self._compute(unknown)
        for job in jobs:
            if not job.computed:
                self._price([job], _table([job.client], [self._flight.known[job.client]]))

    def _compute(self, jobs: list[Job]) -> None:
        """Have clients answer, all at once; what is known of a job's time stays."""
        waiting = sorted(jobs, key=lambda job: job.client)
        self._open = [job for job in self._open if job not in waiting]
        if not waiting:
            return
        exchange = self._wave.exchange([job.client for job in waiting])
        replies = self._perform(exchange)
        self._began.append((exchange, replies))
        table = jobs_of(exchange, replies)
        self._price([job for job in waiting if job.end == float("inf")], table)
        place = {client: i for i, client in enumerate(replies.client_ids)}
        for i, job in enumerate(waiting):
            client = job.client
            job.computed, job.failure = True, replies.failures.get(client, "")
            job.counts = {n: of[client] for n, of in replies.counts.items() if client in of}
            if client in place:
                job.tensors = {n: rows[place[client]] for n, rows in replies.tensors.items()}
                row = tuple(float(getattr(table, name)[i]) for name in _COUNTED)
                self._flight.known[client] = row

    def _price(self, jobs: Sequence[Job], table: Jobs) -> None:
        """Say when these jobs end, by a table that has a row of each client."""
        if not jobs:
            return
        spent = self._flight.fleet.spent(table, self._wave.moment, free=True)
        rows = {client: i for i, client in enumerate(table.clients.tolist())}
        for job in jobs:
            i = rows[job.client]
            job.parts = (float(spent.down[i]), float(spent.compute[i]), float(spent.up[i]))
            seconds = sum(job.parts)
            job.lost = bool(spent.lost[i]) or seconds > self._timeout_s
            job.end = job.start + (self._timeout_s if job.lost else seconds)

    def _landed(self, jobs: Sequence[Job], failures: dict[int, str]) -> Landed:
        now = self._wave.moment.round_index
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

    def _took(self, jobs: Sequence[Job], wasted: int) -> VirtualTime:
        """Return the wave's seconds: those of a mean job that landed, or the share that passed.

        Waiting is what is left, and at least what was waited for anybody to be reached.
        """
        seconds = self._now - self._wave.at_s
        if not jobs or seconds <= self._idle:
            return VirtualTime(seconds=seconds, waiting=seconds, wasted=wasted)
        parts = np.asarray([job.parts for job in jobs]).mean(0)
        parts = parts * min(1.0, (seconds - self._idle) / parts.sum())
        down, compute, up = parts.tolist()
        return VirtualTime(
            seconds=seconds,
            down=down,
            compute=compute,
            up=up,
            waiting=max(0.0, seconds - float(parts.sum())),
            wasted=wasted,
        )


def _table(clients: Sequence[int], rows: Sequence[Sequence[float]]) -> Jobs:
    columns = dict(zip(_COUNTED, np.asarray(rows, dtype=np.float64).T, strict=True))
    ids = np.asarray(clients, dtype=np.int64)
    return Jobs(clients=ids, silent=np.zeros(len(ids), dtype=bool), **columns)


def _stacked(jobs: Sequence[Job], name: str) -> Tensor:
    return torch.stack([job.tensors[name] for job in jobs])
