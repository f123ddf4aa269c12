"""What travels: floats are the elements of tensors; bytes are their sizes in memory plus 8 for each
number of configuration or count and the length of each string. Up counts what has come in time.

A vector that is packed counts as the tensors that it is made into. Where a compressing engine knows
what has travelled, that is among the counts of each client, and is taken from there.

The envelope (names, protobuf, array headers, the seal, the version) belongs to the transport and is
not counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedzo.protocol.answers import UNHEARD
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.messages import head_of
from fedzo.protocol.packing import COUNTED
from fedzo.protocol.question import take_apart


@dataclass(frozen=True, slots=True)
class Size:
    """What travels: tensor elements, and bytes of payload."""

    floats: int
    bytes: int


def exchange_size(exchange: Exchange) -> Size:
    """Return what goes down, to all clients of the exchange together."""
    if exchange.down:
        return _sum(sizes_down(exchange))
    n = len(exchange.client_ids)
    each = sizes_down(exchange)[0] if n else Size(0, 0)
    return Size(n * each.floats, n * each.bytes)


def replies_size(replies: Replies) -> Size:
    """Return what came up, from all clients together."""
    if _is_counted(replies):
        came = [_counted_up(replies, client) for client in replies.client_ids]
        return _sum([*came, Size(0, sum(map(len, _told(replies).values())))])
    tensors, unheard = _tensor_size(replies.tensors.values()), _unheard(replies)
    counts = sum(len(numbers.keys() - unheard) for numbers in replies.counts.values())
    reasons = sum(len(reason) for reason in _told(replies).values())
    return Size(tensors.floats, tensors.bytes + 8 * counts + reasons)


def sent_size(exchange: Exchange, replies: Replies) -> Size:
    """Return what went down, as `exchange_size` does, where replies do not know better."""
    if _is_counted(replies):
        return Size(replies.total("floats_down"), replies.total("bytes_down"))
    return exchange_size(exchange)


def sizes_down(exchange: Exchange) -> list[Size]:
    """Return what goes down to each client of an exchange."""
    parts = take_apart(exchange.question)
    whole = [tensor for name, tensor in parts.shared.items() if name not in exchange.down]
    shared = _tensor_size([*whole, *(tensor[:1] for tensor in parts.own.values())])
    told = [*head_of(exchange).values(), *parts.scalars.values()]
    scalars = sum(len(v) if isinstance(v, str) else 8 for v in told)
    common = Size(shared.floats, shared.bytes + scalars)
    if not exchange.down:
        return [common] * len(exchange.client_ids)
    return [
        _sum([common, *_sizes_of_changes(exchange, row)]) for row in range(len(exchange.client_ids))
    ]


def sizes_up(exchange: Exchange, replies: Replies) -> list[Size]:
    """Return what came up from each client of an exchange."""
    row = _tensor_size(tensor[:1] for tensor in replies.tensors.values())
    answered, unheard, told = set(replies.client_ids), _unheard(replies), _told(replies)
    return [
        Size(
            row.floats * (client in answered),
            row.bytes * (client in answered)
            + 8 * sum(client in of for of in replies.counts.values()) * (client not in unheard)
            + len(told.get(client, "")),
        )
        for client in exchange.client_ids
    ]


def bytes_each(exchange: Exchange, replies: Replies) -> tuple[list[int], list[int]]:
    """Return the bytes down to, and up from, each client of an exchange."""
    counts = replies.counts if _is_counted(replies) else counted_sizes(exchange, replies)
    down, up = counts["bytes_down"], counts["bytes_up"]
    ids = exchange.client_ids
    return [down.get(client, 0) for client in ids], [up.get(client, 0) for client in ids]


def counted_sizes(exchange: Exchange, replies: Replies) -> dict[str, dict[int, int]]:
    """Return what has travelled to and from each client, as counts."""
    both = zip(sizes_down(exchange), sizes_up(exchange, replies), strict=True)
    rows = [(down.floats, down.bytes, up.floats, up.bytes) for down, up in both]
    columns = zip(*rows, strict=True)
    return {
        name: dict(zip(exchange.client_ids, column, strict=True))
        for name, column in zip(COUNTED, columns, strict=True)
    }


def _counted_up(replies: Replies, client: int) -> Size:
    floats, size = replies.counts["floats_up"], replies.counts["bytes_up"]
    return Size(floats.get(client, 0), size.get(client, 0))


def _unheard(replies: Replies) -> set[int]:
    """Return the clients whose answers did not come, though a simulation knows what they did."""
    return {client for client, reason in replies.failures.items() if reason in UNHEARD}


def _told(replies: Replies) -> dict[int, str]:
    """Return the reasons that clients have told."""
    return {c: reason for c, reason in replies.failures.items() if reason not in UNHEARD}


def _is_counted(replies: Replies) -> bool:
    return COUNTED[0] in replies.counts


def _sizes_of_changes(exchange: Exchange, row: int) -> list[Size]:
    return [
        _tensor_size(told.sent(row, getattr(exchange.question, name)).values())
        for name, told in exchange.down.items()
    ]


def _sum(sizes: Sequence[Size]) -> Size:
    return Size(sum(size.floats for size in sizes), sum(size.bytes for size in sizes))


def _tensor_size(tensors: Iterable[Tensor]) -> Size:
    floats, size = 0, 0
    for tensor in tensors:
        floats += tensor.numel()
        size += tensor.numel() * tensor.element_size()
    return Size(floats, size)
