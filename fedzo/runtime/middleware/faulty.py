"""Faults on purpose: an engine that loses, delays, repeats, reorders and damages answers.

It stands before any engine. Every answer goes through the codec and the same collector as on a
wire (runtime.answers), so what a strategy sees is what it would see there.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from flwr.app import ArrayRecord, RecordDict

from fedzo.config import check_types, require
from fedzo.protocol._compat import damaged
from fedzo.protocol.answers import Arrival, collect
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.messages import (
    decode_tensors,
    encode_replies,
    encode_tensors,
)
from fedzo.protocol.seals import seal_answer
from fedzo.randomness import stream
from fedzo.runtime.engine import Engine, Middleware

CRASHED = "crashed (injected)"
UNREADABLE = "malformed reply: it cannot be parsed (injected)"
FATES = ("crash", "drop", "delay", "duplicate", "corrupt")
NOBODY = Replies(client_ids=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultConfig:
    """Probabilities of what can go wrong with a client in an exchange, at most one of them.

    crash: the client does nothing and its state stays. drop: it works, and its answer is lost.
    delay: its answer comes in a later exchange. duplicate: it comes twice. corrupt: it is damaged
    on the way, or wrong from the start (a tensor cut, missing, or not finite). reorder: that the
    answers of an exchange come in another order.
    """

    crash: float = 0.0
    drop: float = 0.0
    delay: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        for entry in fields(self):
            value = getattr(self, entry.name)
            require(0 <= value <= 1, entry.name, value, "a probability, from 0 to 1")
        total = self.crash + self.drop + self.delay + self.duplicate + self.corrupt
        require(total <= 1, "crash + drop + delay + duplicate + corrupt", total, "at most 1")

    @property
    def any(self) -> bool:
        """Whether anything can go wrong."""
        return any(getattr(self, entry.name) > 0 for entry in fields(self))


class Faulty(Middleware):
    """An engine whose clients and wires fail with given probabilities, drawn from `seed`.

    Queries of answers that were lost are still counted: the simulation knows them, a real server
    would not. `injected` says what was done so far. Delayed answers that are still under way are
    not part of a checkpoint.
    """

    def __init__(self, inner: Engine, config: FaultConfig, *, seed: int) -> None:
        super().__init__(inner)
        self._config = config
        self._seed = seed
        self._under_way: list[Arrival] = []
        self.injected: Counter[str] = Counter()

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        late, self._under_way = self._under_way, []
        draws = [self._draw(exchange) for exchange in exchanges]
        for draw in draws:
            self.injected.update([*draw.fates, *(["reorder"] if draw.reorder else [])])
        working = [
            exchange.select([i for i, fate in enumerate(draw.fates) if fate != "crash"])
            for exchange, draw in zip(exchanges, draws, strict=True)
        ]
        asked = [exchange for exchange in working if len(exchange.client_ids)]
        answers = iter(self._inner.perform(asked, timeout_s=timeout_s) if asked else [])
        told = [
            self._spoilt(
                e, next(answers) if len(part.client_ids) else NOBODY, draw, late * (i == 0)
            )
            for i, (e, part, draw) in enumerate(zip(exchanges, working, draws, strict=True))
        ]
        for exchange, replies in zip(exchanges, told, strict=True):
            if not exchange.question.judges:
                self.lost([*replies.failures])
        return told

    def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
        alone = [exchange.select([i]) for i in range(len(exchange.client_ids))]
        working = [i for i, one in enumerate(alone) if self._draw(one).fates != ["crash"]]
        return super().begin(exchange.select(working), timeout_s=timeout_s) if working else []

    def _draw(self, exchange: Exchange) -> "_Draw":
        generator = stream(
            self._seed, "faults", exchange.moment.token, exchange.kind, exchange.client_ids[0]
        )
        limits = np.cumsum([getattr(self._config, fate) for fate in FATES])
        drawn = np.searchsorted(limits, generator.random(len(exchange.client_ids)), side="right")
        fates = [(*FATES, "well")[k] for k in drawn]
        reorder = bool(generator.random() < self._config.reorder)
        return _Draw(generator, fates, reorder)

    def _spoilt(
        self, exchange: Exchange, replies: Replies, draw: "_Draw", late: Sequence[Arrival]
    ) -> Replies:
        """Return the replies after everything that was drawn has happened; `late` ones came too."""
        token = exchange.moment.token
        contents = encode_replies(replies, token=token)
        arrivals = list(late)
        for client, fate in zip(exchange.client_ids, draw.fates, strict=True):
            if fate == "crash":
                arrivals.append(Arrival(client, error=CRASHED))
                continue
            arrival = Arrival(client, contents[client])
            if fate == "corrupt":
                spoilt = corrupt(contents[client], token, draw.generator)
                arrival = Arrival(client, spoilt, "" if spoilt else UNREADABLE)
            if fate == "delay":
                self._under_way.append(arrival)
            elif fate != "drop":
                arrivals += [arrival] * (2 if fate == "duplicate" else 1)
        if draw.reorder:
            arrivals = [arrivals[i] for i in draw.generator.permutation(len(arrivals))]
        came = collect(exchange, arrivals)
        return replace(
            came,
            counts=replies.counts,
            late=came.late + replies.late,
            duplicates=came.duplicates + replies.duplicates,
        )


@dataclass(frozen=True, slots=True)
class _Draw:
    """What happens to whom in one exchange, and where further details are drawn from."""

    generator: np.random.Generator
    fates: Sequence[str]
    reorder: bool


def corrupt(content: RecordDict, token: str, generator: np.random.Generator) -> RecordDict | None:
    """Return an answer damaged in one of five ways, None when it no longer parses at all.

    Flipped bytes on the wire; or, from a client that is itself wrong and seals what it sends, a
    tensor cut short, a tensor missing, a NaN, or a negative count.
    """
    kind = generator.integers(5)
    if kind == 0:
        return damaged(content, generator)
    record, spoilt = content["tensors"], RecordDict(dict(content.items()))
    tensors = decode_tensors(record) if isinstance(record, ArrayRecord) else {}
    if not tensors or kind == 4:
        counts = content["counts"].copy()
        counts["queries"] = -1  # type: ignore[assignment]
        spoilt["counts"] = counts
    else:
        name = sorted(tensors)[int(generator.integers(len(tensors)))]
        tensor = tensors.pop(name)
        if kind == 1:
            tensors[name] = tensor.flatten()[:-1]
        elif kind == 2 and tensor.is_floating_point():
            tensors[name] = torch.full_like(tensor, torch.nan)
        spoilt["tensors"] = encode_tensors(tensors)
    seal_answer(spoilt, token)
    return spoilt
