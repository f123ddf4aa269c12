"""What travels: floats are the elements of tensors; bytes are their sizes in memory plus 8 for each
number of configuration or count and the length of each string.

The envelope (names, protobuf, array headers, the seal, the version) belongs to the transport and is
not counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.messages import head_of
from fedzo.protocol.question import take_apart


@dataclass(frozen=True, slots=True)
class Size:
    """What travels: tensor elements, and bytes of payload."""

    floats: int
    bytes: int


def exchange_size(exchange: Exchange) -> Size:
    """Return what goes down, to all clients of the exchange together."""
    n, parts = len(exchange.client_ids), take_apart(exchange.question)
    shared = _tensor_size(parts.shared.values())
    own = _tensor_size(parts.own.values())
    told = [*head_of(exchange).values(), *parts.scalars.values()]
    scalars = sum(len(v) if isinstance(v, str) else 8 for v in told)
    return Size(n * shared.floats + own.floats, n * (shared.bytes + scalars) + own.bytes)


def replies_size(replies: Replies) -> Size:
    """Return what came up, from all clients together."""
    tensors = _tensor_size(replies.tensors.values())
    counts = sum(len(numbers) for numbers in replies.counts.values())
    reasons = sum(len(reason) for reason in replies.failures.values())
    return Size(tensors.floats, tensors.bytes + 8 * counts + reasons)


def _tensor_size(tensors: Iterable[Tensor]) -> Size:
    floats, size = 0, 0
    for tensor in tensors:
        floats += tensor.numel()
        size += tensor.numel() * tensor.element_size()
    return Size(floats, size)
