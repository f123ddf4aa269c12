"""Chunks of exchanges over Ray actors: they wait, run, and end as answers, each within its time.

What `perform` asks goes first; what clients have begun beforehand waits behind it.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from fedzo.errors import ConfigError
from fedzo.protocol.answers import NO_ANSWER
from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.question import take_apart
from fedzo.runtime.ray.actors import ActorPool, reason_of
from fedzo.runtime.ray.worker import Answer, QuestionArrays, facts_of, to_arrays, to_tensors

LONGEST_S = 3600.0
"""Of a wait for actors: Ray cannot wait for ever."""


@dataclass(slots=True, eq=False)
class Order:
    """Chunks that belong together: how many are open, until when, and what has come of them.

    missed: clients that were late; answered: those that were not. forgotten: whether nobody wants
    it any more, and what its clients do changes nothing.
    """

    end: float
    open: int
    done: list[tuple[int, Answer]]
    missed: set[int]
    answered: set[int]
    forgotten: bool = False


@dataclass(slots=True)
class Chunk:
    """Some clients of one exchange, and how often they may still be tried."""

    index: int
    exchange: Exchange
    shared: Any
    tries: int

    @property
    def question(self) -> QuestionArrays:
        """What its clients are asked, without what all clients get."""
        parts = take_apart(self.exchange.question)
        return QuestionArrays(type(self.exchange.question), to_arrays(parts.own), parts.scalars)


class Schedule:
    """All chunks on the way to actors and on them, of one engine; states: of its clients."""

    def __init__(self, actors: ActorPool, states: dict[int, ClientState]) -> None:
        self._actors, self._states = actors, states
        self._waiting: deque[tuple[Order, Chunk]] = deque()
        self._running: dict[Any, tuple[int, Order, Chunk]] = {}
        self._idle = [n for n in range(len(actors)) if n not in actors.starting.values()]

    def add(self, chunks: Sequence[Chunk], end: float, *, first: bool) -> Order:
        """Take in chunks, before or after all that wait; return what will become of them."""
        order = Order(end, len(chunks), [], set(), set())
        fresh = [(order, chunk) for chunk in chunks]
        if first:
            self._waiting.extendleft(reversed(fresh))
        else:
            self._waiting.extend(fresh)
        self._hand_out()
        return order

    def finish(self, order: Order) -> list[tuple[int, Answer]]:
        """Go on until an order is done; return its answers with the indices of their exchanges."""
        while order.open:
            self.step()
        return order.done

    def step(self) -> None:
        """Take in what has ended; else wait for that, or for the first time that is up."""
        if self._look(0.0):
            return
        orders = [*(o for o, _ in self._waiting), *(o for _, o, _ in self._running.values())]
        if not orders:
            return
        left = max(0.0, min(order.end for order in orders) - time.monotonic())
        if not self._look(min(left, LONGEST_S)):
            self._give_up(time.monotonic())

    def forget(self, orders: Sequence[Order]) -> None:
        """Drop what waits of these orders, and what will come of the rest."""
        for order in orders:
            order.forgotten = True
        self._waiting = deque(pair for pair in self._waiting if not pair[0].forgotten)

    def _look(self, seconds: float) -> bool:
        """Take in what has ended, after so many seconds at most; return whether anything has.

        Actors that are idle then go on with what waits and is not late yet.
        """
        watched = [*self._running, *self._actors.starting]
        ready = ray.wait(watched, num_returns=1, timeout=seconds)[0] if watched else []
        try:
            for reference in ready:
                if reference in self._running:
                    self._take(reference)
                elif (number := self._actors.up(reference)) is not None:
                    self._idle.append(number)
        finally:
            self._hand_out()
        return bool(ready)

    def _hand_out(self) -> None:
        now = time.monotonic()
        while self._waiting and self._idle:
            order, chunk = self._waiting.popleft()
            if order.end > now:
                self._submit(self._idle.pop(0), order, chunk)
            else:
                self._fail(order, chunk, NO_ANSWER)

    def _submit(self, actor: int, order: Order, chunk: Chunk) -> None:
        exchange = chunk.exchange
        reference = self._actors[actor].serve.remote(
            chunk.question,
            chunk.shared,
            facts_of(exchange),
            [to_arrays(self._states.get(client, {})) for client in exchange.client_ids],
        )
        self._running[reference] = (actor, order, chunk)

    def _take(self, reference: Any) -> None:
        """Take in a chunk that has ended, one way or another."""
        actor, order, chunk = self._running.pop(reference)
        ids = chunk.exchange.client_ids
        try:
            answer: Answer = ray.get(reference)
        except RayTaskError as error:
            self._idle.append(actor)
            if isinstance(error.cause, ConfigError) and not order.forgotten:
                order.open -= 1
                raise ConfigError(str(error.cause)) from error
            self._fail(order, chunk, f"the actor raised {reason_of(error)}")
        except RayError as error:
            self._actors.replace(actor)
            self._try_again(order, chunk, f"its Ray actor died: {reason_of(error)}")
        else:
            self._idle.append(actor)
            self._close(order, chunk, answer)
            if not order.forgotten:
                order.answered.update(ids)
                changed = zip(ids, answer.states, strict=True)
                self._states.update({c: to_tensors(s) for c, s in changed if s is not None})

    def _try_again(self, order: Order, chunk: Chunk, reason: str) -> None:
        """Try a chunk once more, or its clients one by one, so that one bad client falls alone."""
        chunk.tries -= 1
        count = len(chunk.exchange.client_ids)
        if order.forgotten:
            return
        if chunk.tries > 0:
            self._waiting.append((order, chunk))
        elif count > 1:
            singles = [chunk.exchange.select([i]) for i in range(count)]
            order.open += count - 1
            self._waiting.extend((order, Chunk(chunk.index, e, chunk.shared, 1)) for e in singles)
        else:
            self._fail(order, chunk, reason)

    def _fail(self, order: Order, chunk: Chunk, reason: str) -> None:
        failures = dict.fromkeys(chunk.exchange.client_ids, reason)
        self._close(order, chunk, Answer(Replies(client_ids=[], failures=failures), {}, []))

    def _close(self, order: Order, chunk: Chunk, answer: Answer) -> None:
        order.open -= 1
        order.done.append((chunk.index, answer))

    def _give_up(self, now: float) -> None:
        """Whose time is up is missing, and actors that are still busy with it are replaced."""
        for reference, (actor, order, chunk) in list(self._running.items()):
            if order.end <= now:
                del self._running[reference]
                self._actors.replace(actor)
                order.missed.update(chunk.exchange.client_ids)
                self._fail(order, chunk, NO_ANSWER)
        kept: deque[tuple[Order, Chunk]] = deque()
        for order, chunk in self._waiting:
            if order.end <= now:
                self._fail(order, chunk, NO_ANSWER)
            else:
                kept.append((order, chunk))
        self._waiting = kept
