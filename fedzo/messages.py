"""The codec between exchanges and Flower messages: lossless, without pickle.

An exchange becomes one content a client:

    RecordDict { "shared": ArrayRecord, "own": ArrayRecord, "config": ConfigRecord, "run", "seal" }

and an answer one content back, with `failure` only where the client failed:

    RecordDict { "tensors": ArrayRecord, "counts": MetricRecord, "failure": ConfigRecord, "seal" }

`run` says which run asks, for clients that keep something (clients.states). The seal holds a CRC-32
of everything else, and, in an answer, the exchange that it answers: what was damaged on the way, or
belongs to an earlier exchange, is recognized and never used.

Sizes: floats are the elements of tensors; bytes are their sizes in memory plus 8 for each number of
configuration or count and the length of each string. The envelope (names, protobuf, array headers,
the seal) belongs to the transport and is not counted.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedzo.config import Scalar
from fedzo.errors import MessageError
from fedzo.exchange import Exchange, Replies, join_replies
from fedzo.runtime._compat import records_round_trip

REASON_KEPT = 500
"""Characters of a client's reason that are kept."""

_COMMON = ("shared", "config", "run")
RecordT = TypeVar("RecordT", ArrayRecord, ConfigRecord, MetricRecord)


@dataclass(frozen=True, slots=True)
class Size:
    """What travels: tensor elements, and bytes of payload."""

    floats: int
    bytes: int


def encode_exchange(
    exchange: Exchange, run: Mapping[str, Scalar] | None = None
) -> list[RecordDict]:
    """Return one content for each client, in the order of client_ids."""
    shared, config = encode_tensors(exchange.shared), ConfigRecord(dict(exchange.config))
    run_record = ConfigRecord(dict(run or {}))
    checked = 0
    for name, record in zip(_COMMON, (shared, config, run_record), strict=True):
        checked = _checksum(name, record, checked)
    contents = []
    for i in range(len(exchange.client_ids)):
        own = encode_tensors({name: t[i] for name, t in exchange.per_client.items()})
        seal = ConfigRecord({"crc32": _checksum("own", own, checked)})
        content = RecordDict({"shared": shared, "own": own})
        content["config"], content["run"], content["seal"] = config, run_record, seal
        contents.append(content)
    return contents


def decode_exchange(content: RecordDict, *, kind: str, client_id: int) -> Exchange:
    """Return the exchange of one client; raises MessageError for anything malformed."""
    _check_seal(content, (*_COMMON, "own"))
    own = decode_tensors(_record(content, "own", ArrayRecord))
    return Exchange(
        kind=kind,
        client_ids=[client_id],
        shared=decode_tensors(_record(content, "shared", ArrayRecord)),
        per_client={name: tensor.unsqueeze(0) for name, tensor in own.items()},
        config=_config(content),
    )


def exchange_token(exchange: Exchange) -> str:
    """Return the name of an exchange within its run: problem.round.exchange."""
    facts = ("problem", "round_index", "exchange_index")
    return ".".join(str(exchange.config.get(name, 0)) for name in facts)


def encode_replies(replies: Replies, *, token: str = "") -> dict[int, RecordDict]:
    """Return the content of each client's answer to the exchange of this token."""
    contents = {}
    for i, client in enumerate(replies.client_ids):
        tensors = {name: tensor[i] for name, tensor in replies.tensors.items()}
        contents[client] = _answer(replies, client, tensors)
    for client, reason in replies.failures.items():
        contents[client] = _answer(replies, client, {})
        contents[client]["failure"] = ConfigRecord({"reason": reason})
    for content in contents.values():
        seal_answer(content, token)
    return contents


def seal_answer(content: RecordDict, token: str) -> None:
    """Say which exchange an answer belongs to, and add the checksum over it."""
    checked = zlib.crc32(_bytes(token))
    for name in _sealed_parts(content):
        checked = _checksum(name, content[name], checked)
    content["seal"] = ConfigRecord({"crc32": checked, "answers": token})


def answered_token(content: RecordDict) -> str:
    """Return the exchange that an answer belongs to; raises MessageError without a whole seal."""
    token = _record(content, "seal", ConfigRecord).get("answers")
    if not isinstance(token, str):
        raise MessageError(f"the seal names no exchange but {token!r:.60}")
    _check_seal(content, _sealed_parts(content), zlib.crc32(_bytes(token)))
    return token


def decode_reply(content: RecordDict, *, client_id: int, token: str = "") -> Replies:
    """Return the answer of one client; raises MessageError for anything malformed."""
    answered = answered_token(content)
    if answered != token:
        raise MessageError(f"it answers exchange {answered!r:.60}, not {token!r}")
    counts = {
        name: {client_id: _whole_number(name, value)}
        for name, value in _record(content, "counts", MetricRecord).items()
    }
    if "failure" in content:
        reason = _record(content, "failure", ConfigRecord).get("reason", "no reason given")
        return Replies(
            client_ids=[], counts=counts, failures={client_id: str(reason)[:REASON_KEPT]}
        )
    tensors = decode_tensors(_record(content, "tensors", ArrayRecord))
    stacked = {name: tensor.unsqueeze(0) for name, tensor in tensors.items()}
    return Replies(client_ids=[client_id], tensors=stacked, counts=counts)


def exchange_through_wire(exchange: Exchange) -> Exchange:
    """Encode, serialize, parse and decode an exchange for all its clients."""
    contents = records_round_trip(encode_exchange(exchange))
    parts = [
        decode_exchange(content, kind=exchange.kind, client_id=client)
        for client, content in zip(exchange.client_ids, contents, strict=True)
    ]
    own = {name: torch.cat([p.per_client[name] for p in parts]) for name in exchange.per_client}
    return replace(parts[0], client_ids=exchange.client_ids, per_client=own)


def replies_through_wire(replies: Replies) -> Replies:
    """Encode, serialize, parse and decode the answers of all clients."""
    contents = encode_replies(replies)
    received = records_round_trip(list(contents.values()))
    pairs = zip(contents, received, strict=True)
    return join_replies([decode_reply(content, client_id=client) for client, content in pairs])


def exchange_size(exchange: Exchange) -> Size:
    """Return what goes down, to all clients of the exchange together."""
    n = len(exchange.client_ids)
    shared = _tensor_size(exchange.shared.values())
    own = _tensor_size(exchange.per_client.values())
    scalars = sum(len(v) if isinstance(v, str) else 8 for v in exchange.config.values())
    return Size(n * shared.floats + own.floats, n * (shared.bytes + scalars) + own.bytes)


def replies_size(replies: Replies) -> Size:
    """Return what came up, from all clients together."""
    tensors = _tensor_size(replies.tensors.values())
    counts = sum(len(numbers) for numbers in replies.counts.values())
    reasons = sum(len(reason) for reason in replies.failures.values())
    return Size(tensors.floats, tensors.bytes + 8 * counts + reasons)


def encode_tensors(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return named tensors as a record."""
    arrays = {name: Array(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()}
    return ArrayRecord(arrays)


def decode_tensors(record: ArrayRecord) -> dict[str, Tensor]:
    """Return the tensors of a record; raises MessageError for bytes that are none."""
    try:
        return {name: torch.from_numpy(array.numpy()) for name, array in record.items()}
    except Exception as error:  # foreign bytes: numpy and torch raise many kinds
        raise MessageError(f"a tensor does not decode: {error}") from error


def _sealed_parts(content: RecordDict) -> list[str]:
    return sorted(name for name in map(str, content) if name != "seal")


def _check_seal(content: RecordDict, parts: Iterable[str], start: int = 0) -> None:
    found = _record(content, "seal", ConfigRecord).get("crc32")
    for name in parts:
        start = _checksum(name, content.get(name), start)
    if found != start:
        raise MessageError(f"damaged on the way: checksum {start}, sent {found!r:.60}")


def _checksum(title: str, record: object, start: int) -> int:
    """Return the CRC-32 of a record's title, names, types and values, going on from `start`."""
    start = zlib.crc32(_bytes(title), start)
    if isinstance(record, ArrayRecord):
        for name, array in sorted(record.items()):
            head = f"{name} {array.dtype} {list(array.shape)} {array.stype}"
            start = zlib.crc32(array.data, zlib.crc32(_bytes(head), start))
        return start
    if isinstance(record, ConfigRecord | MetricRecord):
        return zlib.crc32(_bytes(repr(sorted(record.items()))), start)
    return zlib.crc32(_bytes(repr(type(record))), start)


def _bytes(text: str) -> bytes:
    """Encode any text, even what no encoding allows and a sender made up."""
    return text.encode(errors="backslashreplace")


def _answer(replies: Replies, client: int, tensors: Mapping[str, Tensor]) -> RecordDict:
    numbers: dict[str, int | float | list[int] | list[float]] = {
        name: of[client] for name, of in replies.counts.items() if client in of
    }
    return RecordDict({"tensors": encode_tensors(tensors), "counts": MetricRecord(numbers)})


def _tensor_size(tensors: Iterable[Tensor]) -> Size:
    floats, size = 0, 0
    for tensor in tensors:
        floats += tensor.numel()
        size += tensor.numel() * tensor.element_size()
    return Size(floats, size)


def _config(content: RecordDict) -> dict[str, Scalar]:
    config: dict[str, Scalar] = {}
    for name, value in _record(content, "config", ConfigRecord).items():
        if not isinstance(value, bool | int | float | str):
            raise MessageError(f"config {name!r} is a {type(value).__name__}, not a scalar")
        config[name] = value
    return config


def _record(content: RecordDict, name: str, kind: type[RecordT]) -> RecordT:
    record = content.get(name)
    if not isinstance(record, kind):
        raise MessageError(
            f"the content has no {kind.__name__} {name!r}; it has {sorted(map(str, content))}"
        )
    return record


def _whole_number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise MessageError(f"count {name!r} is {value!r}, not a whole number of at least 0")
    return value
