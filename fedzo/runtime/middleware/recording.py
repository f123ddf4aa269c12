"""A log of every message: who, what, how large, what came of it; nothing of the contents."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.packing import COUNTED
from fedzo.protocol.sizes import replies_size, sent_size
from fedzo.records.storage import cut_to_lines, storing
from fedzo.runtime.engine import Engine, Middleware


class Recording(Middleware):
    """An engine that writes a line of JSON for every message, down and up, to a file.

    Fields: at_s (seconds since the engine was made), way ("down" or "up"), exchange
    (problem.round.exchange), kind, client; floats and bytes as the history counts them; and up,
    outcome ("answered", or the reason of the failure), counts such as queries, and wait_s. Late and
    repeated answers have a line with the number of them and no client. By arrival, who is at work
    when a run ends has none.
    """

    def __init__(self, inner: Engine, path: Path) -> None:
        super().__init__(inner)
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            cut_to_lines(path)
            self._file = path.open("a")
        self._path = path
        self._start = time.perf_counter()
        self._begun: dict[tuple[str, int], float] = {}

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        now = self._now()
        received = self._inner.perform(exchanges, timeout_s=timeout_s)
        began = [self._begun.pop(_key(exchange), now) for exchange in exchanges]
        for exchange, replies, at_s in zip(exchanges, received, began, strict=True):
            for client in exchange.client_ids:
                size = sent_size(exchange.select([0]), _counted_of(replies, client))
                facts = {"client": client, "floats": size.floats, "bytes": size.bytes}
                self._write(at_s, "down", exchange, facts)
        for exchange, replies, at_s in zip(exchanges, received, began, strict=True):
            self._write_replies(exchange, replies, at_s)
        with storing(self._path):
            self._file.flush()
        return received

    def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
        """Have clients begin; their messages down are written when their answers are, if ever."""
        begun = super().begin(exchange, timeout_s=timeout_s)
        self._begun |= dict.fromkeys([(exchange.moment.token, c) for c in begun], self._now())
        return begun

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        self._begun.clear()
        super().restore_client_states(states)

    def close(self) -> None:
        try:
            with storing(self._path):
                self._file.close()
        finally:
            super().close()

    def _write_replies(self, exchange: Exchange, replies: Replies, began: float) -> None:
        now = self._now()
        for client in exchange.client_ids:
            own = replies.only(client)
            size = replies_size(own)
            facts = {
                "client": client,
                "floats": size.floats,
                "bytes": size.bytes,
                "outcome": replies.failures.get(client, "answered"),
                "counts": {n: of[client] for n, of in own.counts.items() if n not in COUNTED},
                "wait_s": round(now - began, 6),
            }
            self._write(now, "up", exchange, facts)
        for outcome, times in (("late", replies.late), ("duplicate", replies.duplicates)):
            if times:
                self._write(now, "up", exchange, {"outcome": outcome, "times": times})

    def _write(
        self, at_s: float, way: str, exchange: Exchange, facts: Mapping[str, object]
    ) -> None:
        head = {"at_s": round(at_s, 6), "way": way, "exchange": exchange.moment.token}
        with storing(self._path):
            self._file.write(json.dumps({**head, "kind": exchange.kind, **facts}) + "\n")

    def _now(self) -> float:
        return time.perf_counter() - self._start


def _key(exchange: Exchange) -> tuple[str, int]:
    return exchange.moment.token, exchange.client_ids[0]


def _counted_of(replies: Replies, client: int) -> Replies:
    """Return what concerns a client, with 0 for what was counted of others alone."""
    own = replies.only(client)
    missing = {n: {client: 0} for n in COUNTED if n in replies.counts and n not in own.counts}
    return replace(own, counts={**own.counts, **missing})
