"""Seals of messages: a CRC-32 of everything else, and, in an answer, the exchange that it answers.

What was damaged on the way, or belongs to an earlier exchange, is recognized and never used.
"""

import zlib
from collections.abc import Iterable
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedzo.errors import MessageError

RecordT = TypeVar("RecordT", ArrayRecord, ConfigRecord, MetricRecord)


def seal_answer(content: RecordDict, token: str) -> None:
    """Say which exchange an answer belongs to, and add the checksum over it."""
    checked = zlib.crc32(_bytes(token))
    for name in sealed_parts(content):
        checked = checksum(name, content[name], checked)
    content["seal"] = ConfigRecord({"crc32": checked, "answers": token})


def answered_token(content: RecordDict) -> str:
    """Return the exchange that an answer belongs to; raises MessageError without a whole seal."""
    token = record_of(content, "seal", ConfigRecord).get("answers")
    if not isinstance(token, str):
        raise MessageError(f"the seal names no exchange but {token!r:.60}")
    check_seal(content, sealed_parts(content), zlib.crc32(_bytes(token)))
    return token


def sealed_parts(content: RecordDict) -> list[str]:
    """Return the parts of an answer that its seal is over."""
    return sorted(name for name in map(str, content) if name != "seal")


def check_seal(content: RecordDict, parts: Iterable[str], start: int = 0) -> None:
    """Raise MessageError unless the seal holds the checksum of these parts, from `start` on."""
    found = record_of(content, "seal", ConfigRecord).get("crc32")
    for name in parts:
        start = checksum(name, content.get(name), start)
    if found != start:
        raise MessageError(f"damaged on the way: checksum {start}, sent {found!r:.60}")


def checksum(title: str, record: object, start: int) -> int:
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


def record_of(content: RecordDict, name: str, kind: type[RecordT]) -> RecordT:
    """Return a record of a content; raises MessageError where it is missing, or of another kind."""
    record = content.get(name)
    if not isinstance(record, kind):
        raise MessageError(
            f"the content has no {kind.__name__} {name!r}; it has {sorted(map(str, content))}"
        )
    return record
