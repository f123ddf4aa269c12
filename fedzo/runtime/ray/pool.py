"""Clients on Ray: actors with fractions of CPUs and GPUs, a chunk of the cohort a call.

What all clients of an exchange get is put into Ray's object store once. Client states stay with
the driver, so an actor may die at any time: its chunk is tried again on another.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from fedzo.errors import ConfigError
from fedzo.protocol.answers import NO_ANSWER
from fedzo.protocol.exchange import ClientState, Exchange, Replies, join_replies
from fedzo.protocol.question import take_apart
from fedzo.runtime.engine_configs import RayConfig
from fedzo.runtime.inprocess import check_disjoint, chunk_size_for
from fedzo.runtime.local import Environment, Rules
from fedzo.runtime.ray.actors import ActorPool, reason_of
from fedzo.runtime.ray.worker import Answer, QuestionArrays, to_arrays, to_tensors


class RayEngine:
    """Performs exchanges on Ray actors that hold the clients' objectives.

    make_environment and make_rules are called in every actor; most: actors to start at most, such
    as the number of clients. Raises RunError when Ray or the actors do not start, ConfigError when
    the cluster has no room for one.
    """

    def __init__(
        self,
        make_environment: Callable[[], Environment],
        make_rules: Callable[[], Rules],
        config: RayConfig | None = None,
        *,
        most: int | None = None,
    ) -> None:
        self._config = config or RayConfig()
        self._states: dict[int, ClientState] = {}
        self._slow: set[int] = set()
        self.actors = ActorPool(make_environment, make_rules, self._config, most)

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        check_disjoint(exchanges)
        chunks = [c for i, e in enumerate(exchanges) for c in self._split(i, e)]
        call = _Call(self.actors, self._states, chunks, time.monotonic() + timeout_s)
        answers = call.run()
        self._slow = (self._slow | call.missed) - call.answered
        return [_joined([a for i, a in answers if i == index]) for index in range(len(exchanges))]

    def client_states(self) -> Mapping[int, ClientState]:
        return self._states

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        self._states = dict(states)

    def close(self) -> None:
        """Stop the actors, and Ray where this engine has started it."""
        self.actors.close()

    def _split(self, index: int, exchange: Exchange) -> list["_Chunk"]:
        """Cut an exchange into chunks; a client whose chunk was late goes alone."""
        alone = [p for p, client in enumerate(exchange.client_ids) if client in self._slow]
        rest = [p for p, client in enumerate(exchange.client_ids) if client not in self._slow]
        spread = -(-len(rest) // len(self.actors))
        size = max(1, self._config.chunk_size or min(spread, chunk_size_for(exchange)))
        groups = [rest[i : i + size] for i in range(0, len(rest), size)]
        shared = ray.put(to_arrays(take_apart(exchange.question).shared))
        return [
            _Chunk(index, exchange.select(group), shared, self._config.retries + 1)
            for group in [*groups, *([p] for p in alone)]
        ]


@dataclass(slots=True)
class _Chunk:
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


class _Call:
    """One call of perform: chunks wait, run on actors, and end as answers."""

    def __init__(
        self,
        actors: ActorPool,
        states: dict[int, ClientState],
        chunks: Sequence[_Chunk],
        end: float,
    ) -> None:
        self._actors = actors
        self._states = states
        self._end = end
        self._waiting = deque(chunks)
        self._running: dict[Any, tuple[int, _Chunk]] = {}
        self._idle = [n for n in range(len(actors)) if n not in actors.starting.values()]
        self._done: list[tuple[int, Answer]] = []
        self.missed: set[int] = set()
        self.answered: set[int] = set()

    def run(self) -> list[tuple[int, Answer]]:
        """Run all chunks; return answers with the index of their exchange."""
        while self._waiting or self._running:
            while self._waiting and self._idle:
                self._submit(self._idle.pop(0), self._waiting.popleft())
            left = max(0.0, self._end - time.monotonic())
            watched = [*self._running, *self._actors.starting]
            ready, _ = ray.wait(watched, num_returns=1, timeout=left)
            if not ready:
                self._give_up()
            for reference in ready:
                if reference in self._running:
                    self._finish(reference)
                elif (number := self._actors.up(reference)) is not None:
                    self._idle.append(number)
        return self._done

    def _submit(self, actor: int, chunk: _Chunk) -> None:
        exchange = chunk.exchange
        reference = self._actors[actor].serve.remote(
            chunk.question,
            chunk.shared,
            _facts(exchange),
            [to_arrays(self._states.get(client, {})) for client in exchange.client_ids],
        )
        self._running[reference] = (actor, chunk)

    def _finish(self, reference: Any) -> None:
        """Take in a chunk that has ended, one way or another."""
        actor, chunk = self._running.pop(reference)
        ids = chunk.exchange.client_ids
        try:
            answer: Answer = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, ConfigError):
                raise ConfigError(str(error.cause)) from error
            self._fail(chunk, f"the actor raised {reason_of(error)}")
        except RayError as error:
            self._actors.replace(actor)
            self._try_again(chunk, f"its Ray actor died: {reason_of(error)}")
            return
        else:
            self._done.append((chunk.index, answer))
            self.answered.update(ids)
            changed = zip(ids, answer.states, strict=True)
            self._states.update({c: to_tensors(s) for c, s in changed if s is not None})
        self._idle.append(actor)

    def _try_again(self, chunk: _Chunk, reason: str) -> None:
        """Try a chunk once more, or its clients one by one, so that one bad client falls alone."""
        chunk.tries -= 1
        count = len(chunk.exchange.client_ids)
        if chunk.tries > 0:
            self._waiting.append(chunk)
        elif count > 1:
            singles = [chunk.exchange.select([i]) for i in range(count)]
            self._waiting.extend(_Chunk(chunk.index, one, chunk.shared, 1) for one in singles)
        else:
            self._fail(chunk, reason)

    def _fail(self, chunk: _Chunk, reason: str) -> None:
        failures = dict.fromkeys(chunk.exchange.client_ids, reason)
        self._done.append((chunk.index, Answer(Replies(client_ids=[], failures=failures), {}, [])))

    def _give_up(self) -> None:
        """Time is up: whoever has not answered is missing, and actors still busy are replaced."""
        for actor, chunk in self._running.values():
            self._actors.replace(actor)
            self.missed.update(chunk.exchange.client_ids)
            self._fail(chunk, NO_ANSWER)
        for chunk in self._waiting:
            self._fail(chunk, NO_ANSWER)
        self._running.clear()
        self._waiting.clear()


def _facts(exchange: Exchange) -> dict[str, Any]:
    """Return all of an exchange but its question."""
    here = ("question", "down", "is_enough")
    named = {f.name: getattr(exchange, f.name) for f in fields(exchange) if f.name not in here}
    return {**named, "client_ids": list(exchange.client_ids)}


def _joined(answers: Sequence[Answer]) -> Replies:
    """Join the answers of chunks, with one copy of each number where they are in order."""
    replies = join_replies([answer.replies for answer in answers])
    some = [answer for answer in answers if answer.replies.client_ids]
    some.sort(key=lambda answer: answer.replies.client_ids[0])
    order = np.argsort([client for answer in some for client in answer.replies.client_ids])
    joined = {
        name: np.concatenate([answer.tensors[name] for answer in some])
        for name in (some[0].tensors if some else {})
    }
    if (np.diff(order) != 1).any():
        joined = {name: array[order] for name, array in joined.items()}
    return replace(replies, tensors={name: torch.from_numpy(a) for name, a in joined.items()})
