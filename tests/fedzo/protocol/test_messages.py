"""The codec is lossless on what a rule may send, and refuses everything else in a sentence."""

import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from worlds import Toy

from clients.averaging.zeroth_order import ZerothOrderConfig
from fedzo.errors import ConfigError, MessageError
from fedzo.protocol import messages, seals
from fedzo.protocol._compat import wire_size
from fedzo.protocol.exchange import Exchange, Moment, Replies
from fedzo.protocol.messages import (
    decode_exchange,
    decode_reply,
    encode_exchange,
    encode_replies,
    exchange_through_wire,
    replies_through_wire,
)
from fedzo.protocol.question import Answer, Question
from fedzo.protocol.questions import ZerothOrderSteps
from fedzo.protocol.seals import seal_answer
from fedzo.protocol.sizes import exchange_size, replies_size

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_])
names = st.text("abcdefg_.", min_size=1, max_size=6)


def tensors(shape=None):  # type: ignore[no-untyped-def]
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4) if shape is None else shape
    return DTYPES.flatmap(lambda t: hnp.arrays(t, shapes)).map(torch.from_numpy)


whole = st.integers(-(2**63), 2**63 - 1)
questions = st.builds(
    Toy,
    x=st.none() | tensors(),
    row=st.none() | tensors((3, 2)),
    count=whole,
    mu=st.floats(allow_nan=False),
    name=st.text(max_size=10),
    base=st.booleans(),
)
heads = st.fixed_dictionaries(
    {
        "moment": st.builds(Moment, whole, whole, whole),
        "seed": whole,
        "budget": st.none() | whole,
        "optional": st.booleans(),
        "poisoned": st.booleans(),
    }
)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@given(questions, heads)
def test_an_exchange_survives_the_wire(question, head) -> None:  # type: ignore[no-untyped-def]
    exchange = Exchange(question=question, client_ids=[2, 5, 9], **head)
    back = exchange_through_wire(exchange)
    assert list(back.client_ids) == [2, 5, 9]
    assert {name: getattr(back, name) for name in head} == head
    for name in ("x", "row", "count", "mu", "name", "base"):
        sent, got = getattr(question, name), getattr(back.question, name)
        assert type(sent) is type(got)
        assert same(sent, got) if isinstance(sent, torch.Tensor) else sent == got


@given(st.dictionaries(names, tensors((2, 3)), min_size=1, max_size=2), st.integers(0, 2**62))
def test_replies_survive_the_wire(values, queries) -> None:  # type: ignore[no-untyped-def]
    replies = Replies(
        client_ids=[1, 4],
        tensors=values,
        counts={"queries": {1: queries, 4: 0, 7: 3}},
        failures={7: "too late"},
    )
    back = replies_through_wire(replies)
    assert list(back.client_ids) == [1, 4]
    assert back.counts == replies.counts
    assert back.failures == replies.failures
    assert all(same(values[name], back.tensors[name]) for name in values)


def test_sizes_count_elements_and_payload() -> None:
    question = Toy(
        x=torch.zeros(5, dtype=torch.float64), row=torch.zeros(2, 3), mu=0.1, name="four", count=0
    )
    exchange = Exchange(question=question, client_ids=[0, 1])
    size, head = exchange_size(exchange), len(messages.head_of(exchange))
    assert size.floats == 2 * 5 + 2 * 3
    assert size.bytes == 2 * 5 * 8 + 2 * 3 * 4 + 2 * (8 + 4 + 8 * head)
    replies = Replies(
        client_ids=[0, 1], tensors={"u": torch.zeros(2, 5)}, counts={"queries": {0: 1, 1: 1}}
    )
    assert replies_size(replies).floats == 10
    assert replies_size(replies).bytes == 10 * 4 + 2 * 8


def test_the_envelope_is_all_that_the_byte_count_leaves_out() -> None:
    steps = ZerothOrderSteps(
        x=torch.zeros(10_000), settings=ZerothOrderConfig(), local_steps=3, local_lr=0.1
    )
    exchange = Exchange(question=steps, client_ids=[0], seed=1, moment=Moment(0, 2, 1))
    on_the_wire = wire_size(encode_exchange(exchange)[0])
    assert 0 < on_the_wire - exchange_size(exchange).bytes < 700


def content(**records: object) -> RecordDict:
    named = {"shared": ArrayRecord(), "own": ArrayRecord(), "config": ConfigRecord()}
    head = ConfigRecord({"version": messages.VERSION})
    return RecordDict({**named, "head": head, **records})  # type: ignore[dict-item]


def sealed(record: RecordDict) -> RecordDict:
    """Seal what a faulty or malicious sender made, so that its content is looked at."""
    checksum = 0
    for name in (*messages._COMMON, "own"):
        checksum = seals.checksum(name, record.get(name), checksum)
    record["seal"] = ConfigRecord({"crc32": checksum})
    return record


def sealed_answer(record: RecordDict) -> RecordDict:
    seal_answer(record, "")
    return record


SPRUNG = Path(tempfile.mkdtemp()) / "sprung"


class Trap:
    """Unpickling it makes the folder SPRUNG."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(SPRUNG),))


def pickled() -> Array:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    return Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=buffer.getvalue())


PICKLED = pickled()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (RecordDict(), "the server speaks version 1 of fedzo's messages, this client version 3"),
        (content(head=ConfigRecord({"version": 4})), "the server speaks version 4"),
        (content(head=ConfigRecord({"version": 3, "seed": 0.5})), "where whole numbers belong"),
        (content(own=ConfigRecord()), "no ArrayRecord 'own'"),
        (content(shared=ConfigRecord()), "no ArrayRecord 'shared'"),
        (content(config=ConfigRecord({"a": [1, 2]})), "not a scalar"),
        (content(config=ConfigRecord({"colour": 1})), "train.toy has no 'colour'"),
        (content(config=ConfigRecord({"mu": "much"})), "train.toy: mu='much' must be"),
        (content(config=ConfigRecord({"x": 1.0})), "x does not come as a tensor for all"),
        (content(own=ArrayRecord({"x": Array(np.ones(2))})), "x does not come as a tensor for all"),
        (content(shared=ArrayRecord({"mu": Array(np.ones(2))})), "mu does not come as a scalar"),
        (content(shared=ArrayRecord({"x": PICKLED})), "does not decode"),
    ],
)
def test_malformed_exchanges_are_refused(record: RecordDict, message: str) -> None:
    with pytest.raises(MessageError, match=message):
        decode_exchange(sealed(record), Toy, client_id=0)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"queries": -1}, "whole number"),
        ({"queries": 1.5}, "whole number"),
        ({"bytes_up": 3}, "count 'bytes_up' is the server's to make"),
    ],
)
def test_malformed_counts_are_refused(counts: dict[str, float], message: str) -> None:
    record = RecordDict({"tensors": ArrayRecord(), "counts": MetricRecord(counts)})  # type: ignore[arg-type]
    with pytest.raises(MessageError, match=message):
        decode_reply(sealed_answer(record), client_id=0)


def test_objects_are_never_unpickled() -> None:
    record = RecordDict({"tensors": ArrayRecord({"x": PICKLED}), "counts": MetricRecord()})
    with pytest.raises(MessageError, match="does not decode"):
        decode_reply(sealed_answer(record), client_id=0)
    assert not SPRUNG.exists()
    np.load(io.BytesIO(PICKLED.data), allow_pickle=True)
    assert SPRUNG.exists(), "the trap works where pickle is allowed"
    SPRUNG.rmdir()


def test_a_failure_is_an_answer() -> None:
    sent = encode_replies(Replies(client_ids=[], failures={3: "no ink"}, counts={"q": {3: 2}}))
    back = decode_reply(sent[3], client_id=3)
    assert (back.failures, back.counts) == ({3: "no ink"}, {"q": {3: 2}})


def test_a_question_is_of_a_kind_that_flower_sorts() -> None:
    with pytest.raises(ConfigError, match=r"Local\.kind='local\.x' must be one of train, query"):

        class Local(Question[Answer]):
            kind = "local.x"
