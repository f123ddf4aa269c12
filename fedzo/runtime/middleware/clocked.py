"""A virtual clock: every answer is priced from what was counted, and may come too late.

In asynchronous rounds, from what its client counted the last time (fedzo.fleet.flight).

It stands outside of all other middleware and around any engine; the engine inside computes as ever,
and gets no deadline: `timeout_s` is one of the virtual clock. So x moves as without a clock, bit
for bit, where nobody is late, lost or away. Nothing is remembered but the jobs of asynchronous
rounds: devices, jitter and losses are functions of the seed and the moment (fedzo.fleet.devices),
and the driver says what time it is.

A client that is late or lost has worked: its queries count and its state has changed. Whoever
cannot be reached has done nothing, and nobody waits for it; where that is so of all that were
asked, the server looks again after ten minutes. Judging x takes no time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedzo.fleet.devices import ONLINE_S, Fleet, Spent
from fedzo.fleet.flight import Flight
from fedzo.fleet.jobs import jobs_of
from fedzo.fleet.settling import Until, settle
from fedzo.protocol.answers import AWAY, LATE, NO_ANSWER
from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.wave import Landed, Wave
from fedzo.records.virtual_time import VirtualTime
from fedzo.runtime.engine import Engine, Middleware

FLIGHT = -2
"""The client under whose number the jobs in flight are kept; liars remember as -1."""
REAL_DEADLINE_S = 7 * 86_400.0
"""For the engine inside, whose time is not what is simulated."""


class Clocked(Middleware):
    """An engine with a virtual clock; `took` is what the last call has taken."""

    def __init__(self, inner: Engine, fleet: Fleet) -> None:
        super().__init__(inner)
        self.fleet, self.took = fleet, VirtualTime()
        self._flight = Flight(fleet)

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        self.took = VirtualTime()
        if all(exchange.moment.is_judging for exchange in exchanges):
            return self._inner.perform(exchanges, timeout_s=timeout_s)
        reached = [self.fleet.online(e.client_ids, e.at_s) for e in exchanges]
        parts = [
            exchange if here.all() else exchange.select(np.flatnonzero(here).tolist())
            for exchange, here in zip(exchanges, reached, strict=True)
        ]
        asked = [part for part in parts if len(part.client_ids)]
        answers = self._inner.perform(asked, timeout_s=REAL_DEADLINE_S) if asked else []
        spent = [self._spent(part, told) for part, told in zip(asked, answers, strict=True)]
        failed = [
            np.asarray([client in told.failures for client in part.client_ids], dtype=bool)
            for part, told in zip(asked, answers, strict=True)
        ]
        enough = max((part.enough for part in asked), default=0)
        until = _until(asked[0]) if len(asked) == 1 else None
        settled = settle(spent, timeout_s, enough=enough, failed=failed, until=until)
        self.took = settled.took if asked else VirtualTime(seconds=ONLINE_S, waiting=ONLINE_S)
        known = iter(zip(answers, spent, settled.missed, strict=True))
        told = [
            _told(exchange, here, next(known) if len(part.client_ids) else None)
            for exchange, here, part in zip(exchanges, reached, parts, strict=True)
        ]
        late = [c for replies in told for c, why in replies.failures.items() if why != AWAY]
        self.lost(late)
        return told

    def wave(self, wave: Wave, *, timeout_s: float) -> Landed:
        """Go on until so many of the clients at work have answered."""
        perform = partial(self._inner.perform, timeout_s=REAL_DEADLINE_S)
        landed, self.took = self._flight.wave(wave, perform, timeout_s)
        return landed

    def client_states(self) -> Mapping[int, ClientState]:
        """Return the clients' states, and that of the jobs in flight as if it were a client's."""
        pending = self._flight.pending()
        states = self._inner.client_states()
        return {**states, FLIGHT: pending} if pending else states

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        self._flight.restore(states.get(FLIGHT, {}))
        self._inner.restore_client_states({c: s for c, s in states.items() if c != FLIGHT})

    def online(self, ids: Sequence[int], at_s: float) -> NDArray[np.bool_]:
        """Return which clients can be reached at a time [n]."""
        return self.fleet.online(ids, at_s)

    def _spent(self, exchange: Exchange, replies: Replies) -> Spent:
        cost = exchange.question.cost()
        works = cost.queries + cost.gradients > 0 and exchange.budget is None
        free = not works or exchange.question.is_free or not len(replies.client_ids)
        return self.fleet.spent(jobs_of(exchange, replies), exchange.moment, free=free)


def _until(exchange: Exchange) -> Until | None:
    """Return when those who have answered an exchange are enough, by position."""
    is_enough, ids = exchange.is_enough, exchange.client_ids
    if is_enough is None:
        return None
    return Until(lambda rows: is_enough([ids[row] for row in rows]), exchange.patience)


def _told(
    exchange: Exchange,
    here: NDArray[np.bool_],
    known: tuple[Replies, Spent, NDArray[np.bool_]] | None,
) -> Replies:
    """Return the replies without those that came late, got lost, or could not be asked."""
    away = {c: AWAY for c, there in zip(exchange.client_ids, here, strict=True) if not there}
    if known is None:
        return Replies(client_ids=[], failures=away)
    replies, spent, missed = known
    asked = [c for c, there in zip(exchange.client_ids, here, strict=True) if there]
    late = {
        client: NO_ANSWER if lost else LATE
        for client, lost, out in zip(asked, spent.lost, missed, strict=True)
        if out and client not in replies.failures
    }
    told = replies.without(late)
    return replace(told, failures={**told.failures, **away}) if away else told
