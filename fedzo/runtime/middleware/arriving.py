"""Waves in real time: clients work on, and the server goes on with answers as they arrive.

It stands outside of all other middleware, around an engine whose clients can begin beforehand
(Ray, Flower, a deployment). An answer goes through everything in between when it arrives, alone.
Which answers come first is a matter of machines, so a run does not repeat, unless the server waits
for all (`until` = as many as work, refill "step").

What a job asks at most is counted when it begins, since it may never be heard of again; the rest
when its answer arrives. Who does not begin at all, such as a node that is away, has failed at once.
Jobs are no part of a checkpoint: a resumed run asks anew. `timeout_s` counts from when a client is
asked, in a queue or at work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fedzo.fleet.going import Going, InFlight
from fedzo.fleet.job import Job
from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.packing import COUNTED
from fedzo.protocol.sizes import counted_sizes
from fedzo.protocol.wave import Landed, Wave
from fedzo.runtime.engine import Engine, Middleware


class Arriving(Middleware):
    """An engine that goes on with answers as they arrive."""

    def __init__(self, inner: Engine) -> None:
        super().__init__(inner)
        self._out = _Out()

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        return self._inner.perform(exchanges, timeout_s=timeout_s)

    def wave(self, wave: Wave, *, timeout_s: float) -> Landed:
        """Go on until so many answers have come, or nobody is at work any more."""
        return _Real(self, self._out, wave, timeout_s).go()

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        self._out = _Out()
        super().restore_client_states(states)


@dataclass(slots=True)
class _Out:
    """All that is out: the jobs, what each of their clients was asked, and who has not begun."""

    flight: InFlight = field(default_factory=InFlight)
    asked: dict[int, Exchange] = field(default_factory=dict)
    idle: list[Job] = field(default_factory=list)


class _Real(Going):
    """One wave under way."""

    def __init__(self, engine: Arriving, out: _Out, wave: Wave, timeout_s: float) -> None:
        super().__init__(out.flight, wave)
        self._engine, self._out, self._timeout_s = engine, out, timeout_s

    def _begin(self, jobs: Sequence[Job], *, at_once: bool) -> None:
        if not jobs:
            return
        begun: set[int] = set()
        for exchange in self._wave.exchanges(sorted(job.client for job in jobs)):
            begun.update(self._engine.begin(exchange, timeout_s=self._timeout_s))
            for place, client in enumerate(exchange.client_ids):
                alone = exchange.select([place])
                self._out.asked[client] = alone
                if client in begun:
                    self._began.append(_begun(alone))
        self._out.idle += [job for job in jobs if job.client not in begun]

    def _next(self) -> Job:
        idle = self._out.idle.pop() if self._out.idle else None
        job = idle or self._arrived()
        exchange = self._out.asked.pop(job.client)
        [replies] = self._engine.perform([exchange], timeout_s=self._timeout_s)
        self._began.append((exchange, replies) if idle else _ended(exchange, replies))
        job.hear(replies, 0 if len(replies.client_ids) else None)
        return job

    def _end(self) -> None:
        """Leave those at work to the next wave."""

    def _arrived(self) -> Job:
        token, client = self._engine.await_one()
        [job] = [job for job in self._flight.jobs if job.client == client]
        assert self._out.asked[client].moment.token == token
        return job


def _begun(exchange: Exchange) -> tuple[Exchange, Replies]:
    """Return what a client that begins costs: what goes down, and all that it may ask."""
    cost, [client] = exchange.question.cost(), exchange.client_ids
    asked = {"queries": cost.queries, "gradients": cost.gradients}
    counts = {name: {client: number} for name, number in asked.items() if number}
    sizes = counted_sizes(exchange, Replies(client_ids=[]))
    return exchange, Replies(client_ids=[], counts={**counts, **sizes})


def _ended(exchange: Exchange, replies: Replies) -> tuple[Exchange, Replies]:
    """Return what has not been counted yet of a client that is done."""
    _, begun = _begun(exchange)
    counts = dict(replies.counts)
    if COUNTED[0] not in counts:
        counts |= counted_sizes(exchange, replies)
    left = {
        name: {client: max(0, n - begun.counts.get(name, {}).get(client, 0)) for client, n in of}
        for name, of in ((name, of.items()) for name, of in counts.items())
    }
    return exchange, replace(replies, counts=left)
