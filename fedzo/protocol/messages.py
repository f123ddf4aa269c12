"""The codec between exchanges and Flower messages: lossless, without pickle.

An exchange becomes one content a client:

    RecordDict { "shared": ArrayRecord, "own": ArrayRecord, "config": ConfigRecord,
                 "head": ConfigRecord, "run", "seal" }

and an answer one content back, with `failure` only where the client failed:

    RecordDict { "tensors": ArrayRecord, "counts": MetricRecord, "failure": ConfigRecord, "seal" }

`shared`, `own` and `config` are the parts of the question (fedzo.protocol.question), `head` what
the driver adds, how vectors are packed and the VERSION of all this, `run` which run asks, for
clients that keep something (clients.states). What seals hold: fedzo.protocol.seals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedzo.compression.scheme import scheme_of
from fedzo.config import Scalar
from fedzo.errors import MessageError
from fedzo.objectives.asking import OnFailure
from fedzo.protocol._compat import records_round_trip
from fedzo.protocol.exchange import ClientState, Exchange, Moment, Replies, join_replies
from fedzo.protocol.packing import COUNTED, Down, received
from fedzo.protocol.question import Parts, Question, put_together, take_apart
from fedzo.protocol.seals import answered_token, check_seal, checksum, record_of, seal_answer

REASON_KEPT = 500
"""Characters of a client's reason that are kept."""

VERSION = 3
"""Of the messages; a server and a client of different ones do not understand each other."""
_DOWN = "down/"
_NUMBERS = "the head holds {!r:.200}, where whole numbers belong"
_COMMON = ("shared", "config", "head", "run")


def encode_exchange(
    exchange: Exchange, run: Mapping[str, Scalar] | None = None
) -> list[RecordDict]:
    """Return one content for each client, in the order of client_ids."""
    parts = take_apart(exchange.question)
    whole = {name: t for name, t in parts.shared.items() if name not in exchange.down}
    records: dict[str, ArrayRecord | ConfigRecord | MetricRecord] = {
        "shared": encode_tensors(whole),
        "config": ConfigRecord(dict(parts.scalars)),
        "head": ConfigRecord({**head_of(exchange), "version": VERSION}),
        "run": ConfigRecord(dict(run or {})),
    }
    checked = 0
    for name in _COMMON:
        checked = checksum(name, records[name], checked)
    contents = []
    for i in range(len(exchange.client_ids)):
        rows = {name: tensor[i] for name, tensor in parts.own.items()}
        own = encode_tensors({**rows, **_changes(exchange, i)})
        seal = ConfigRecord({"crc32": checksum("own", own, checked)})
        contents.append(RecordDict({**records, "own": own, "seal": seal}))
    return contents


def decode_exchange(
    content: RecordDict,
    cls: type[Question[Any]],
    *,
    client_id: int,
    state: Mapping[str, Tensor] | None = None,
) -> Exchange:
    """Return the exchange of one client, whose question is a `cls`.

    state: what it remembers, of which x may be made. Raises MessageError for anything malformed,
    and for messages of another version.
    """
    _check_version(content)
    check_seal(content, (*_COMMON, "own"))
    head = _scalars(content, "head")
    arrays = decode_tensors(record_of(content, "own", ArrayRecord))
    own = {name: t for name, t in arrays.items() if not name.startswith(_DOWN)}
    changed, down = _received(head, arrays, state or {})
    parts = Parts(
        shared={**decode_tensors(record_of(content, "shared", ArrayRecord)), **changed},
        own={name: tensor.unsqueeze(0) for name, tensor in own.items()},
        scalars=_scalars(content, "config"),
    )
    seed, budget = head.get("seed", 0), head.get("query_budget")
    if any(type(n) is not int for n in (seed, budget or 0)):
        raise MessageError(_NUMBERS.format(head))
    return Exchange(
        question=put_together(cls, parts),
        client_ids=[client_id],
        moment=_moment(head),
        seed=seed,  # type: ignore[arg-type]
        budget=budget,  # type: ignore[arg-type]
        optional=head.get("optional", False) is True,
        poisoned=head.get("flip_labels", False) is True,
        on_failure=_on_failure(head),
        up=scheme_of(str(head["up"])) if "up" in head else None,
        down=down,
    )


def moment_of(content: RecordDict) -> Moment:
    """Return when an exchange is, before it is decoded; raises MessageError for no numbers."""
    return _moment(_scalars(content, "head"))


def _moment(head: Mapping[str, Scalar]) -> Moment:
    numbers = [head.get(name, 0) for name in ("problem", "round_index", "exchange_index")]
    if any(type(n) is not int for n in numbers):
        raise MessageError(_NUMBERS.format(head))
    return Moment(*numbers)  # type: ignore[arg-type]


def _changes(exchange: Exchange, row: int) -> dict[str, Tensor]:
    """Return what the client at a position gets of the vectors that come as changes."""
    return {
        f"{_DOWN}{name}/{part}": tensor
        for name, told in exchange.down.items()
        for part, tensor in told.sent(row, getattr(exchange.question, name)).items()
    }


def _received(
    head: Mapping[str, Scalar], arrays: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Down]]:
    """Return the vectors that come as changes, and which versions they are."""
    vectors, down = {}, {}
    for key, told in head.items():
        if not key.startswith(_DOWN):
            continue
        name, (number, _, text) = key.removeprefix(_DOWN), str(told).partition(":")
        if not number.isdecimal() or len(number) > 12:
            raise MessageError(f"{key}={told!r:.60} names no version")
        version, scheme, prefix = int(number), scheme_of(text), f"{key}/"
        sent = {n.removeprefix(prefix): t for n, t in arrays.items() if n.startswith(prefix)}
        vectors[name] = received(name, version, scheme, sent, state)
        down[name] = Down(scheme, version, [version], {})
    return vectors, down


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
    if exchange.up is not None:
        head["up"] = exchange.up.text()
    head.update({f"{_DOWN}{name}": told.text() for name, told in exchange.down.items()})
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


def decode_reply(content: RecordDict, *, client_id: int, token: str = "") -> Replies:
    """Return the answer of one client; raises MessageError for anything malformed."""
    answered = answered_token(content)
    if answered != token:
        raise MessageError(f"it answers exchange {answered!r:.60}, not {token!r}")
    counts = {
        name: {client_id: _whole_number(name, value)}
        for name, value in record_of(content, "counts", MetricRecord).items()
    }
    if "failure" in content:
        reason = record_of(content, "failure", ConfigRecord).get("reason", "no reason given")
        return Replies(
            client_ids=[], counts=counts, failures={client_id: str(reason)[:REASON_KEPT]}
        )
    tensors = decode_tensors(record_of(content, "tensors", ArrayRecord))
    stacked = {name: tensor.unsqueeze(0) for name, tensor in tensors.items()}
    return Replies(client_ids=[client_id], tensors=stacked, counts=counts)


def exchange_through_wire(
    exchange: Exchange, states: Sequence[ClientState] | None = None
) -> Exchange:
    """Encode, serialize, parse and decode an exchange for all its clients.

    states: what each remembers, where x comes as its changes.
    """
    contents = records_round_trip(encode_exchange(exchange))
    cls, ids = type(exchange.question), exchange.client_ids
    decoded = [
        decode_exchange(content, cls, client_id=client, state=state)
        for client, content, state in zip(ids, contents, states or [{}] * len(ids), strict=True)
    ]
    parts = [take_apart(one.question) for one in decoded]
    own = {name: torch.cat([part.own[name] for part in parts]) for name in parts[0].own}
    question = put_together(cls, replace(parts[0], own=own))
    return replace(decoded[0], client_ids=ids, question=question, down=exchange.down)


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


def _answer(replies: Replies, client: int, tensors: Mapping[str, Tensor]) -> RecordDict:
    numbers: dict[str, int | float | list[int] | list[float]] = {
        name: of[client]
        for name, of in replies.counts.items()
        if client in of and name not in COUNTED
    }
    return RecordDict({"tensors": encode_tensors(tensors), "counts": MetricRecord(numbers)})


def _scalars(content: RecordDict, title: str) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for name, value in record_of(content, title, ConfigRecord).items():
        if not isinstance(value, bool | int | float | str):
            raise MessageError(f"{title} {name!r} is a {type(value).__name__}, not a scalar")
        found[name] = value
    return found


def _whole_number(name: str, value: object) -> int:
    if name in COUNTED:
        raise MessageError(f"count {name!r} is the server's to make")
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise MessageError(f"count {name!r} is {value!r}, not a whole number of at least 0")
    return value
