"""The codec between exchanges and Flower messages: lossless, without pickle.

An exchange becomes one content a client:

    RecordDict { "shared": ArrayRecord, "own": ArrayRecord, "config": ConfigRecord,
                 "head": ConfigRecord, "run", "seal" }

and an answer one content back, with `failure` only where the client failed:

    RecordDict { "tensors": ArrayRecord, "counts": MetricRecord, "failure": ConfigRecord, "seal" }

`shared`, `own` and `config` are the parts of the question (fedzo.protocol.question), `head` what
the driver adds and the VERSION of all this, `run` which run asks, for clients that keep something
(clients.states). The seal holds a CRC-32 of everything else, and, in an answer, the exchange that
it answers: what was damaged on the way, or belongs to an earlier exchange, is recognized and never
used.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast, get_args

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedzo.config import Scalar
from fedzo.errors import MessageError
from fedzo.objectives.asking import OnFailure
from fedzo.protocol._compat import records_round_trip
from fedzo.protocol.exchange import Exchange, Moment, Replies, join_replies
from fedzo.protocol.question import Parts, Question, put_together, take_apart

REASON_KEPT = 500
"""Characters of a client's reason that are kept."""

VERSION = 2
"""Of the messages; a server and a client of different ones do not understand each other."""
_COMMON = ("shared", "config", "head", "run")
RecordT = TypeVar("RecordT", ArrayRecord, ConfigRecord, MetricRecord)


def encode_exchange(
    exchange: Exchange, run: Mapping[str, Scalar] | None = None
) -> list[RecordDict]:
    """Return one content for each client, in the order of client_ids."""
    parts = take_apart(exchange.question)
    records: dict[str, ArrayRecord | ConfigRecord | MetricRecord] = {
        "shared": encode_tensors(parts.shared),
        "config": ConfigRecord(dict(parts.scalars)),
        "head": ConfigRecord({**head_of(exchange), "version": VERSION}),
        "run": ConfigRecord(dict(run or {})),
    }
    checked = 0
    for name in _COMMON:
        checked = _checksum(name, records[name], checked)
    contents = []
    for i in range(len(exchange.client_ids)):
        own = encode_tensors({name: t[i] for name, t in parts.own.items()})
        seal = ConfigRecord({"crc32": _checksum("own", own, checked)})
        contents.append(RecordDict({**records, "own": own, "seal": seal}))
    return contents


def decode_exchange(content: RecordDict, cls: type[Question[Any]], *, client_id: int) -> Exchange:
    """Return the exchange of one client, whose question is a `cls`.

    Raises MessageError for anything malformed, and for messages of another version.
    """
    _check_version(content)
    _check_seal(content, (*_COMMON, "own"))
    own = decode_tensors(_record(content, "own", ArrayRecord))
    parts = Parts(
        shared=decode_tensors(_record(content, "shared", ArrayRecord)),
        own={name: tensor.unsqueeze(0) for name, tensor in own.items()},
        scalars=_scalars(content, "config"),
    )
    head = _scalars(content, "head")
    numbers = [head.get(name, 0) for name in ("problem", "round_index", "exchange_index")]
    seed, budget = head.get("seed", 0), head.get("query_budget")
    if any(type(n) is not int for n in (*numbers, seed, budget or 0)):
        raise MessageError(f"the head holds {head!r:.200}, where whole numbers belong")
    return Exchange(
        question=put_together(cls, parts),
        client_ids=[client_id],
        moment=Moment(*numbers),  # type: ignore[arg-type]
        seed=seed,  # type: ignore[arg-type]
        budget=budget,  # type: ignore[arg-type]
        optional=head.get("optional", False) is True,
        poisoned=head.get("flip_labels", False) is True,
        on_failure=_on_failure(head),
    )


def _on_failure(head: Mapping[str, Any]) -> OnFailure:
    told = head.get("on_failure", "fail")
    if told not in get_args(OnFailure):
        raise MessageError(f"on_failure={told!r:.40} in the head must be fail, retry or skip")
    return cast(OnFailure, told)


def _check_version(content: RecordDict) -> None:
    head = content.get("head")
    found = head.get("version") if isinstance(head, ConfigRecord) else 1
    if found != VERSION:
        raise MessageError(
            f"the server speaks version {found!r:.20} of fedzo's messages, this client version"
            f" {VERSION}; install the same release of fedzo on both"
        )


def head_of(exchange: Exchange) -> dict[str, Scalar]:
    """Return what the driver adds to a question, as scalars."""
    moment = exchange.moment
    head: dict[str, Scalar] = {
        "seed": exchange.seed,
        "round_index": moment.round_index,
        "exchange_index": moment.exchange_index,
        "problem": moment.problem,
    }
    if exchange.budget is not None:
        head["query_budget"] = exchange.budget
    if exchange.on_failure != "fail":
        head["on_failure"] = exchange.on_failure
    flags = {"optional": exchange.optional, "flip_labels": exchange.poisoned}
    return {**head, **{name: True for name, flag in flags.items() if flag}}


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
    cls = type(exchange.question)
    decoded = [
        decode_exchange(content, cls, client_id=client)
        for client, content in zip(exchange.client_ids, contents, strict=True)
    ]
    parts = [take_apart(one.question) for one in decoded]
    own = {name: torch.cat([part.own[name] for part in parts]) for name in parts[0].own}
    question = put_together(cls, replace(parts[0], own=own))
    return replace(decoded[0], client_ids=exchange.client_ids, question=question)


def replies_through_wire(replies: Replies) -> Replies:
    """Encode, serialize, parse and decode the answers of all clients."""
    contents = encode_replies(replies)
    received = records_round_trip(list(contents.values()))
    pairs = zip(contents, received, strict=True)
    return join_replies([decode_reply(content, client_id=client) for client, content in pairs])


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


def _scalars(content: RecordDict, title: str) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for name, value in _record(content, title, ConfigRecord).items():
        if not isinstance(value, bool | int | float | str):
            raise MessageError(f"{title} {name!r} is a {type(value).__name__}, not a scalar")
        found[name] = value
    return found


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
