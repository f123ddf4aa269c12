"""The face of every engine."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.wave import Landed, Wave
from fedzo.records.virtual_time import VirtualTime


@runtime_checkable
class Engine(Protocol):
    """Performs exchanges: who runs the clients, and where, is its business."""

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        """Send every exchange, wait up to `timeout_s`, and return the replies in the same order.

        The exchanges of one call must concern different clients. Clients that did not answer in
        time are failures. Raises RunError when the engine itself cannot work.
        """
        ...

    def client_states(self) -> Mapping[int, ClientState]:
        """Return the clients' states as far as the engine holds them, for a checkpoint."""
        ...

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        """Put back what a checkpoint holds; without states, every client starts afresh."""
        ...

    def close(self) -> None:
        """Give back what the engine holds: actors, threads, files."""
        ...


@runtime_checkable
class HasClock(Protocol):
    """An engine with a virtual clock (fedzo.runtime.middleware.clocked)."""

    @property
    def took(self) -> VirtualTime:
        """Return what the last call of `perform` has taken."""
        ...

    def online(self, ids: Sequence[int], at_s: float) -> NDArray[np.bool_]:
        """Return which clients can be reached at a time [n]."""
        ...


@runtime_checkable
class OpenEnded(Protocol):
    """An engine whose clients work on while the server goes on."""

    def wave(self, wave: Wave, *, timeout_s: float) -> Landed:
        """Send off whoever is free, and return what has landed until the wave ends."""
        ...


NOBODY_BEGAN = "somebody is waited for, and nobody has begun: call begin before await_one"


@runtime_checkable
class Eager(Protocol):
    """An engine whose clients can begin before `perform` asks for what they have done."""

    def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
        """Have clients begin, each as if it were asked alone; return who has.

        `perform` with one of them and the same moment then returns what it has done. Who has not
        begun is to be asked as ever. `timeout_s` is from now on.
        """
        ...

    def await_one(self) -> tuple[str, int]:
        """Wait until one that has begun is done or late; return its moment's token, and it."""
        ...


class Middleware:
    """An engine around another, which it leaves alone but for what a subclass changes."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
        """Have clients of an eager engine begin; see `Eager`."""
        assert isinstance(self._inner, Eager)
        return self._inner.begin(exchange, timeout_s=timeout_s)

    def await_one(self) -> tuple[str, int]:
        """Wait for one that has begun."""
        assert isinstance(self._inner, Eager)
        return self._inner.await_one()

    def lost(self, client_ids: Sequence[int]) -> None:
        """Take note that answers of these clients have not come to the server."""
        if isinstance(self._inner, Middleware):
            self._inner.lost(client_ids)

    def client_states(self) -> Mapping[int, ClientState]:
        return self._inner.client_states()

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        self._inner.restore_client_states(states)

    def close(self) -> None:
        """Close the engine inside."""
        self._inner.close()
