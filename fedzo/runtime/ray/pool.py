"""Clients on Ray: actors with fractions of CPUs and GPUs, a chunk of the cohort a call.

What all clients of an exchange get is put into Ray's object store once. Client states stay with
the driver, so an actor may die at any time: its chunk is tried again on another.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import ray
import torch

from fedzo.errors import RunError
from fedzo.protocol.exchange import ClientState, Exchange, Replies, join_replies
from fedzo.protocol.question import take_apart
from fedzo.runtime.engine import NOBODY_BEGAN
from fedzo.runtime.engine_configs import RayConfig
from fedzo.runtime.inprocess import check_disjoint, chunk_size_for
from fedzo.runtime.local import Environment, Rules
from fedzo.runtime.ray.actors import ActorPool
from fedzo.runtime.ray.schedule import Chunk, Order, Schedule
from fedzo.runtime.ray.worker import Answer, to_arrays


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
        self._begun: dict[tuple[str, int], Order] = {}
        self.actors = ActorPool(make_environment, make_rules, self._config, most)
        self._schedule = Schedule(self.actors, self._states)

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        check_disjoint(exchanges)
        order = self._order_of(exchanges)
        if order is None:
            chunks = [c for i, e in enumerate(exchanges) for c in self._split(i, e)]
            order = self._schedule.add(chunks, time.monotonic() + timeout_s, first=True)
        try:
            answers = self._schedule.finish(order)
        except BaseException:
            self._schedule.forget([order])
            raise
        self._slow = (self._slow | order.missed) - order.answered
        return [_joined([a for i, a in answers if i == index]) for index in range(len(exchanges))]

    def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
        end = time.monotonic() + timeout_s
        for chunk in self._chunks(0, exchange, [[p] for p in range(len(exchange.client_ids))]):
            key = exchange.moment.token, chunk.exchange.client_ids[0]
            self._begun[key] = self._schedule.add([chunk], end, first=False)
        return exchange.client_ids

    def await_one(self) -> tuple[str, int]:
        if not self._begun:
            raise RunError(NOBODY_BEGAN)
        while True:
            for key, order in self._begun.items():
                if not order.open:
                    return key
            self._schedule.step()

    def client_states(self) -> Mapping[int, ClientState]:
        return dict(self._states)

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        self._schedule.forget(list(self._begun.values()))
        self._begun.clear()
        fresh = dict(states)
        self._states.clear()
        self._states.update(fresh)

    def close(self) -> None:
        """Stop the actors, and Ray where this engine has started it."""
        self.actors.close()

    def _order_of(self, exchanges: Sequence[Exchange]) -> Order | None:
        """Return what a client has begun that is asked alone for it."""
        if len(exchanges) != 1 or len(exchanges[0].client_ids) != 1:
            return None
        return self._begun.pop((exchanges[0].moment.token, exchanges[0].client_ids[0]), None)

    def _split(self, index: int, exchange: Exchange) -> list[Chunk]:
        """Cut an exchange into chunks; a client whose chunk was late goes alone."""
        alone = [p for p, client in enumerate(exchange.client_ids) if client in self._slow]
        rest = [p for p, client in enumerate(exchange.client_ids) if client not in self._slow]
        spread = -(-len(rest) // len(self.actors))
        size = max(1, self._config.chunk_size or min(spread, chunk_size_for(exchange)))
        groups = [rest[i : i + size] for i in range(0, len(rest), size)]
        return self._chunks(index, exchange, [*groups, *([p] for p in alone)])

    def _chunks(
        self, index: int, exchange: Exchange, groups: Sequence[Sequence[int]]
    ) -> list[Chunk]:
        shared = ray.put(to_arrays(take_apart(exchange.question).shared))
        tries = self._config.retries + 1
        return [Chunk(index, exchange.select(group), shared, tries) for group in groups]


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
