"""Jobs in flight: an event simulation whose clients are computed late, together, and once.

    next event = the job with the least (end, number)

How long a job takes and whether it is lost are functions of the seed, the client and the round in
which it was asked, so nothing depends on what is computed together. A job's time follows from what
its client counts: it is computed at once where nobody knows how long the client takes, and else
with all others of its round, at the end of the wave at the latest.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from fedzo.fleet.devices import DAY_S, ONLINE_S, Fleet
from fedzo.fleet.going import Going, InFlight
from fedzo.fleet.job import Job, from_tensors, to_tensors
from fedzo.fleet.jobs import Jobs, jobs_of
from fedzo.protocol.answers import NO_ANSWER
from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.sizes import sizes_down
from fedzo.protocol.wave import Landed, Wave
from fedzo.records.virtual_time import VirtualTime

Perform = Callable[[Sequence[Exchange]], list[Replies]]
_COUNTED = ("down", "up", "queries", "gradients", "examples")


class Flight:
    """The jobs of one problem on a virtual clock, all of them computed between two waves.

    known: client -> what its last job counted, by which the next one's time is known beforehand.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.out = fleet, InFlight()
        self.known: dict[int, tuple[float, ...]] = {}

    @property
    def jobs(self) -> Sequence[Job]:
        """Those that have not landed."""
        return self.out.jobs

    def pending(self) -> ClientState:
        """Return all that is to be remembered as tensors; nothing before the first job."""
        if not self.out.number:
            return {}
        known = [[float(client), *row] for client, row in sorted(self.known.items())]
        table = torch.tensor(known, dtype=torch.float64).reshape(-1, 1 + len(_COUNTED))
        jobs = sorted(self.jobs, key=lambda job: job.number)
        return {"number": torch.tensor(self.out.number), "known": table, **to_tensors(jobs)}

    def restore(self, state: ClientState) -> None:
        """Put back what `pending` gave; nothing begins afresh."""
        self.out = InFlight(from_tensors(state), int(state["number"]) if state else 0)
        rows = state["known"].tolist() if state else []
        self.known = {int(client): tuple(row) for client, *row in rows}

    def wave(self, wave: Wave, perform: Perform, timeout_s: float) -> tuple[Landed, VirtualTime]:
        """Go on until so many answers have come, or nobody is at work any more."""
        going = _Virtual(self, wave, perform, timeout_s)
        return going.go(), going.took


class _Virtual(Going):
    """One wave under way on a fleet's clock."""

    def __init__(self, flight: Flight, wave: Wave, perform: Perform, timeout_s: float) -> None:
        super().__init__(flight.out, wave)
        self._fleet, self._known = flight.fleet, flight.known
        self._perform, self._timeout_s = perform, timeout_s
        self._open: list[Job] = []
        self._idle = 0.0

    @property
    def took(self) -> VirtualTime:
        """The wave's seconds: those of a mean job that landed, or the share that passed.

        Waiting is what is left, and at least what was waited for anybody to be reached.
        """
        seconds, jobs, wasted = self._now - self._wave.at_s, self._landed_jobs, self._wasted
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

    def _fill(self) -> None:
        """Send off as many as are missing.

        Where nobody is at work and nobody can be reached, the server looks again every ten minutes,
        for a day.
        """
        first, jobs = self._wave.first, self._flight.jobs
        if jobs:
            super()._fill()
            return
        for _ in range(int(DAY_S // ONLINE_S)):
            found = [c for c, there in zip(first, self._online(first), strict=True) if there]
            found = found or self._drawn(len(first))
            if found:
                self._send(found, at_once=True)
                return
            self._now += ONLINE_S
            self._idle += ONLINE_S

    def _online(self, clients: Sequence[int]) -> Sequence[bool]:
        here: list[bool] = self._fleet.online(clients, self._now).tolist()
        return here

    def _begin(self, jobs: Sequence[Job], *, at_once: bool) -> None:
        unknown = [job for job in jobs if at_once or job.client not in self._known]
        self._open += [job for job in jobs if job not in unknown]
        self._compute(unknown)
        for job in jobs:
            if not job.computed:
                self._price([job], _table([job.client], [self._expected(job.client)]))

    def _expected(self, client: int) -> tuple[float, ...]:
        """Return what a client will count: what it did last, but for what goes down to it now."""
        if self._wave.sort is None:
            return self._known[client]
        [exchange] = self._wave.exchanges([client])
        [down] = sizes_down(exchange)
        return float(down.bytes), *self._known[client][1:]

    def _next(self) -> Job:
        if not self._first().computed:
            self._compute(self._open)  # and whose answer is lost then ends later
        job = self._first()
        self._now = job.end
        return job

    def _first(self) -> Job:
        return min(self._flight.jobs, key=lambda one: one.key)

    def _end(self) -> None:
        self._compute(self._open)

    def _compute(self, jobs: list[Job]) -> None:
        """Have clients answer, all at once; what is known of a job's time stays."""
        waiting = sorted(jobs, key=lambda job: job.client)
        self._open = [job for job in self._open if job not in waiting]
        if not waiting:
            return
        exchanges = self._wave.exchanges([job.client for job in waiting])
        answers = self._perform(exchanges)
        jobs_by_client = {job.client: job for job in waiting}
        for exchange, replies in zip(exchanges, answers, strict=True):
            self._hear(
                [jobs_by_client[client] for client in exchange.client_ids], exchange, replies
            )

    def _hear(self, jobs: Sequence[Job], exchange: Exchange, replies: Replies) -> None:
        """Take down what the clients of an exchange, one a job, have said and counted."""
        table = jobs_of(exchange, replies)
        self._price([job for job in jobs if job.end == float("inf")], table)
        place = {client: i for i, client in enumerate(replies.client_ids)}
        for i, job in enumerate(jobs):
            job.hear(replies, place.get(job.client))
            if bool(table.silent[i]) and not job.lost:
                job.lost, job.end = True, job.start + self._timeout_s
            if job.client in place:
                row = tuple(float(getattr(table, name)[i]) for name in _COUNTED)
                self._known[job.client] = row
        lost = {job.client: NO_ANSWER for job in jobs if job.lost and job.client in place}
        self._began.append((exchange, replies.without(lost) if lost else replies))

    def _price(self, jobs: Sequence[Job], table: Jobs) -> None:
        """Say when these jobs end, by a table that has a row of each client."""
        if not jobs:
            return
        spent = self._fleet.spent(table, self._wave.moment, free=True)
        rows = {client: i for i, client in enumerate(table.clients.tolist())}
        for job in jobs:
            i = rows[job.client]
            job.parts = (float(spent.down[i]), float(spent.compute[i]), float(spent.up[i]))
            seconds = sum(job.parts)
            job.lost = bool(spent.lost[i]) or seconds > self._timeout_s
            job.end = job.start + (self._timeout_s if job.lost else seconds)


def _table(clients: Sequence[int], rows: Sequence[Sequence[float]]) -> Jobs:
    columns = dict(zip(_COUNTED, np.asarray(rows, dtype=np.float64).T, strict=True))
    ids = np.asarray(clients, dtype=np.int64)
    return Jobs(clients=ids, silent=np.zeros(len(ids), dtype=bool), **columns)
