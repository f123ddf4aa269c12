"""From what arrives to what can be used: each client's answer once, whole, and of this exchange.

Whatever the transport loses, repeats, delays, reorders or damages, a strategy sees either a
client's answer or the reason why there is none.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from flwr.app import RecordDict

from fedzo.errors import MessageError
from fedzo.protocol.exchange import Exchange, Replies, join_replies, misfit, reject_misfits
from fedzo.protocol.messages import decode_reply
from fedzo.protocol.seals import answered_token

NO_ANSWER = "no answer in time"
LATE = "the answer came late"
AWAY = "cannot be reached now"
UNHEARD = frozenset({NO_ANSWER, LATE, AWAY})
"""What a server says itself of clients whose answers it has not got: nothing has travelled."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message that came back: a content, or the error that the transport reports instead."""

    client_id: int
    content: RecordDict | None = None
    error: str = ""


def collect(exchange: Exchange, arrivals: Iterable[Arrival]) -> Replies:
    """Return the replies to an exchange among everything that arrived.

    An answer to another exchange is late; a copy of an answer is a duplicate, unless what came
    before it was damaged. Clients without a usable answer are failures. Tensors that are not what
    the exchange expects, or differ from the majority's in name, shape or type, are rejected.
    """
    token = exchange.moment.token
    found: dict[int, Replies] = {}
    damaged: set[int] = set()
    late = duplicates = 0
    for arrival in arrivals:
        client = arrival.client_id
        if _is_late(arrival, token):
            late += 1
            continue
        duplicates += client in found
        if client in found and client not in damaged:
            continue
        try:
            found[client] = _decoded(arrival, exchange, token)
            damaged.discard(client)
        except MessageError as error:
            found.setdefault(client, missing(client, str(error)))
            damaged.add(client)
    parts = [found.get(client, missing(client, NO_ANSWER)) for client in exchange.client_ids]
    return replace(join_replies(reject_misfits(parts)), late=late, duplicates=duplicates)


def missing(client: int, reason: str) -> Replies:
    """Return the replies of a client that has none."""
    return Replies(client_ids=[], failures={client: reason})


def _is_late(arrival: Arrival, token: str) -> bool:
    """Return whether this is a whole answer to another exchange."""
    if arrival.content is None:
        return False
    try:
        return answered_token(arrival.content) != token
    except MessageError:
        return False


def _decoded(arrival: Arrival, exchange: Exchange, token: str) -> Replies:
    """Return an answer; raises MessageError if it is damaged, or an error of the transport."""
    client = arrival.client_id
    if arrival.content is None:
        raise MessageError(arrival.error)
    try:
        part = decode_reply(arrival.content, client_id=client, token=token)
    except MessageError as error:
        raise MessageError(f"malformed reply: {error}") from error
    wrong = misfit(part, exchange) if part.client_ids else ""
    return part.without({client: f"malformed reply: {wrong}"} if wrong else {})
