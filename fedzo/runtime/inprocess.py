"""The default engine: all clients in this process, as cohorts of stacked tensors.

No message object is made. With `strict=True` every exchange and every reply is encoded, sent
through protobuf and decoded again, so that what passes here passes on the wire, at the same bits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from fedzo.errors import RunError
from fedzo.protocol.exchange import ClientState, Exchange, Replies, join_replies
from fedzo.protocol.messages import exchange_through_wire, replies_through_wire
from fedzo.runtime.local import Environment, Rules, serve

_CHUNK_NUMBERS = 1 << 25
"""Numbers that the queried points of one chunk may hold: 256 MB in float64."""


class InProcessEngine:
    """Runs local rules on stacked tensors.

    chunk_size: clients a rule sees at once; 0 chooses it from the size of the points. workers:
    clients with code of their own that are asked at a time, in threads; stacked ones are asked
    together anyway. States exist only for clients that have one, so a million registered clients
    cost nothing. A local computation is not interrupted: `timeout_s` has no effect here.
    """

    def __init__(
        self,
        environment: Environment,
        rules: Rules,
        *,
        strict: bool = False,
        chunk_size: int = 0,
        workers: int = 1,
    ) -> None:
        self._environment = environment
        self._rules = rules
        self._strict = strict
        self._chunk_size = chunk_size
        self._pool = ThreadPoolExecutor(workers, "fedzo-client") if workers > 1 else None
        self._states: dict[int, ClientState] = {}

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        check_disjoint(exchanges)
        return [self._perform(exchange) for exchange in exchanges]

    def client_states(self) -> Mapping[int, ClientState]:
        return self._states

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        self._states = dict(states)

    def close(self) -> None:
        """Give back the threads, where there are some."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _perform(self, exchange: Exchange) -> Replies:
        if self._strict:
            exchange = exchange_through_wire(exchange, self._known(exchange))
        size = self._chunk_size or chunk_size_for(exchange)
        count = len(exchange.client_ids)
        if count <= size:
            return self._serve(exchange)
        chunks = torch.arange(count).split(size)
        return join_replies([self._serve(exchange.select(chunk.tolist())) for chunk in chunks])

    def _serve(self, exchange: Exchange) -> Replies:
        before = self._known(exchange)
        replies, after = serve(exchange, self._environment, self._rules, before, pool=self._pool)
        if self._strict and exchange.down:
            after = [{**state, **exchange.views} for state in after]
        for client, state in zip(exchange.client_ids, after, strict=True):
            if state:
                self._states[client] = state
        return replies_through_wire(replies) if self._strict else replies

    def _known(self, exchange: Exchange) -> list[ClientState]:
        return [self._states.get(client, {}) for client in exchange.client_ids]


def chunk_size_for(exchange: Exchange) -> int:
    """Return how many clients fit in a chunk; a function of the exchange alone, so runs repeat."""
    return max(1, _CHUNK_NUMBERS // exchange.question.cost().floats)


def check_disjoint(exchanges: Sequence[Exchange]) -> None:
    """Raise RunError when a client is asked twice at once: a real engine would lose its state."""
    if len(exchanges) < 2:
        return
    times = Counter(client for exchange in exchanges for client in exchange.client_ids)
    twice = sorted(client for client, count in times.items() if count > 1)
    if twice:
        raise RunError(f"clients {twice} are asked twice in one call; yield the exchanges in turn")
