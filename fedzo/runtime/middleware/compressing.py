"""Compressed messages: x goes down as its changes, clients' vectors come up packed.

It stands directly around an engine, so that everybody outside sees vectors as they have arrived.
How many floats and bytes have travelled to and from each client is added to the counts.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedzo.compression.scheme import Scheme
from fedzo.errors import FedzoWarning
from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.packing import part_name
from fedzo.protocol.sizes import counted_sizes
from fedzo.runtime.engine import Engine, Middleware
from fedzo.runtime.middleware.broadcast import Broadcast

VIEWS = -3
"""The client under whose number the server's memory of what clients have is kept."""


class Compressing(Middleware):
    """An engine whose vectors go up and down by these schemes, None as they are."""

    def __init__(self, inner: Engine, *, up: Scheme | None, down: Scheme | None) -> None:
        super().__init__(inner)
        self._up, self._down = up, down
        self._broadcasts: dict[str, Broadcast] = {}
        self._used, self._is_heard = set[str](), False

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        told = [self._told(exchange) for exchange in exchanges]
        received = self._inner.perform(told, timeout_s=timeout_s)
        return [self._heard(e, replies) for e, replies in zip(told, received, strict=True)]

    def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
        return super().begin(self._told(exchange), timeout_s=timeout_s)

    def close(self) -> None:
        """Close the engine inside, and say so where nothing was there to be packed."""
        super().close()
        wanted = {"up": self._up, "down": self._down}
        for way in (way for way, scheme in wanted.items() if scheme is not None):
            if self._is_heard and way not in self._used:
                warnings.warn(
                    f"compression.{way} had no effect: nothing was asked that holds a vector of"
                    " x's kind; leave it out",
                    FedzoWarning,
                    stacklevel=2,
                )

    def lost(self, client_ids: Sequence[int]) -> None:
        for broadcast in self._broadcasts.values():
            broadcast.forget(client_ids)
        super().lost(client_ids)

    def client_states(self) -> Mapping[int, ClientState]:
        """Return the clients' states, and the server's memory as if it were a client's."""
        states = self._inner.client_states()
        memory = {
            f"{name}/{part}": tensor
            for name, broadcast in self._broadcasts.items()
            for part, tensor in broadcast.tensors().items()
        }
        return {**states, VIEWS: memory} if memory else states

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        found: dict[str, dict[str, Tensor]] = {}
        for key, tensor in states.get(VIEWS, {}).items():
            name, _, part = key.partition("/")
            found.setdefault(name, {})[part] = tensor
        self._broadcasts = {}
        for name, tensors in found.items():
            self._broadcast(name).restore(tensors)
        self._inner.restore_client_states({c: s for c, s in states.items() if c != VIEWS})

    def _told(self, exchange: Exchange) -> Exchange:
        """Return the exchange as it travels; judges get x itself."""
        if self._down is None or exchange.question.judges:
            return replace(exchange, up=self._up)
        vectors: dict[str, Tensor] = {}
        down = {}
        for name in exchange.question.vectors_down:
            vector = getattr(exchange.question, name)
            if vector is not None:
                broadcast = self._broadcast(name)
                down[name] = broadcast.down(vector, exchange)
                vectors[name] = broadcast.view
        self._used |= {"down"} if vectors else set()
        question = replace(exchange.question, **vectors)
        return replace(exchange, question=question, up=self._up, down=down)

    def _heard(self, exchange: Exchange, replies: Replies) -> Replies:
        """Return the replies with vectors again, and what has travelled among the counts."""
        sizes = counted_sizes(exchange, replies)
        self._is_heard |= len(replies.client_ids) > 0 and not exchange.question.judges
        for name, down in exchange.down.items():
            self._broadcasts[name].heard(down, replies.client_ids, list(replies.failures))
        if exchange.up is not None:
            packed, replies = replies, unpacked(exchange, replies)
            if packed.tensors.keys() != replies.tensors.keys():
                self._used.add("up")
        return replace(replies, counts={**replies.counts, **sizes})

    def _broadcast(self, name: str) -> Broadcast:
        assert self._down is not None
        return self._broadcasts.setdefault(name, Broadcast(name, self._down))


def unpacked(exchange: Exchange, replies: Replies) -> Replies:
    """Return replies with vectors where these are packed; who cannot be decoded has failed."""
    assert exchange.up is not None
    compressor, question = exchange.up.compressor, exchange.question
    tensors, wrong = dict(replies.tensors), dict[int, str]()
    for name in question.vectors_up:
        [dim, *_] = question.shapes().get(name, [()])[0] or (0,)
        names = {part: part_name(name, part) for part in compressor.forms(dim)} if dim else {}
        if not names or not all(stored in tensors for stored in names.values()):
            continue
        parts = {part: tensors.pop(stored) for part, stored in names.items()}
        sound = compressor.sound(parts, dim)
        wrong.update(
            {
                client: f"malformed reply: {name} cannot be decoded"
                for client, fine in zip(replies.client_ids, sound.tolist(), strict=True)
                if not fine
            }
        )
        whole = {part: tensor[sound] for part, tensor in parts.items()}
        vectors = compressor.decode(whole, dim)
        tensors[name] = vectors.new_zeros(len(sound), dim).to(_type(exchange))
        tensors[name][sound] = vectors.to(tensors[name])
    return replace(replies, tensors=tensors).without(wrong)


def _type(exchange: Exchange) -> torch.dtype:
    """Return the type of the vectors that the question tells, float64 where there is none."""
    told = (getattr(exchange.question, name, None) for name in ("x", "gradient"))
    return next((vector.dtype for vector in told if vector is not None), torch.float64)
