"""What has come of a message over a grid, and of a client that has begun beforehand."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import Message

from fedzo.protocol.answers import Arrival
from fedzo.protocol.exchange import Exchange

_RAISED = re.compile(r"<class '(?P<kind>[\w.()]+)'>:<'(?P<told>.*)'>", re.DOTALL)
"""What Flower's simulation says of an exception."""
_IN_APP = "Exception ClientAppException occurred. Message: "
"""After this it says what the app raised, behind the stack of an actor."""


@dataclass(slots=True)
class Begun:
    """A client at work: until when it is waited for, under which message, and what came."""

    end: float
    identity: str
    arrival: Arrival | None = None


def arrivals_of(exchange: Exchange, arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Return what came from the clients of an exchange."""
    ids = set(exchange.client_ids)
    return [arrival for arrival in arrivals if arrival.client_id in ids]


def arrival_of(reply: Message, client: int) -> Arrival:
    """Return a reply as what a client has answered, or the error instead."""
    if reply.has_error():
        return Arrival(client, error=reason_of(reply))
    return Arrival(client, content=reply.content)


def reason_of(reply: Message) -> str:
    """Return what a reply without content says, in the words of what was raised."""
    reason = reply.error.reason or f"error code {reply.error.code}"
    found = _RAISED.fullmatch(reason)
    if found is None:
        return reason
    if _IN_APP in found["told"]:
        return found["told"].rpartition(_IN_APP)[2]
    kind, told = found["kind"].rpartition(".")[2], found["told"].partition("\n")[0]
    return told if kind == "TimeoutError" else f"{kind}: {told}"
