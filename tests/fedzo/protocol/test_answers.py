"""Laws of `collect`: whatever arrives, in whatever order, the same answers or the same reasons."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from worlds import Toy

from fedzo.protocol._compat import damaged
from fedzo.protocol.answers import NO_ANSWER, Arrival, collect
from fedzo.protocol.exchange import Exchange, Moment, Replies
from fedzo.protocol.messages import encode_replies
from fedzo.protocol.seals import seal_answer
from fedzo.randomness import stream

N, D = 4, 3
NOW = Exchange(question=Toy(dim=D), client_ids=range(N), moment=Moment(0, 5, 1))
EARLIER = replace(NOW, moment=Moment(0, 4, 1))
UNTOLD = replace(NOW, question=Toy())
"""The same, but nothing is known of how the answer looks."""
UPDATES = torch.from_numpy(stream(0, "updates").standard_normal((N, D)))


def whole(client: int, exchange: Exchange = NOW, **tensors: torch.Tensor) -> Arrival:
    """Return the arrival of a client's answer; its own row of UPDATES unless told."""
    own = {name: tensor.unsqueeze(0) for name, tensor in tensors.items()}
    replies = Replies(
        client_ids=[client],
        tensors=own or {"update": UPDATES[client : client + 1]},
        counts={"queries": {client: 7 + client}},
    )
    return Arrival(client, encode_replies(replies, token=exchange.moment.token)[client])


def failing(client: int, exchange: Exchange = NOW) -> Arrival:
    replies = Replies(
        client_ids=[], failures={client: "no ink"}, counts={"queries": {client: 100 + client}}
    )
    return Arrival(client, encode_replies(replies, token=exchange.moment.token)[client])


def spoilt(client: int, seed: int = 0) -> Arrival:
    """Return an answer with a few bytes flipped on the way."""
    content = damaged(whole(client).content, stream(seed, "damage"))  # type: ignore[arg-type]
    return Arrival(client, content, "" if content else "unreadable")


def same(a: Replies, b: Replies) -> bool:
    """Whether two replies agree bit for bit, apart from what was late or came twice."""
    tensors = {name: (t.shape, t.numpy().tobytes()) for name, t in a.tensors.items()}
    return (
        list(a.client_ids) == list(b.client_ids)
        and tensors == {name: (t.shape, t.numpy().tobytes()) for name, t in b.tensors.items()}
        and a.failures == b.failures
        and a.counts == b.counts
    )


OUTCOMES = {
    "answers": lambda client: [whole(client)],
    "fails": lambda client: [failing(client)],
    "is lost": lambda client: [],
    "raises": lambda client: [Arrival(client, error="out of memory")],
}
outcomes = st.lists(st.sampled_from([*OUTCOMES]), min_size=N, max_size=N)


def arrivals_of(chosen: Sequence[str]) -> list[Arrival]:
    return [a for client, outcome in enumerate(chosen) for a in OUTCOMES[outcome](client)]


@given(outcomes, st.data())
def test_order_copies_and_late_answers_change_no_bit(
    chosen: list[str], data: st.DataObject
) -> None:
    once = arrivals_of(chosen)
    copies = data.draw(st.lists(st.sampled_from(once), max_size=4)) if once else []
    late = [
        whole(client, EARLIER) for client in data.draw(st.lists(st.integers(0, N - 1), max_size=3))
    ]
    late += [
        failing(client, EARLIER)
        for client in data.draw(st.lists(st.integers(0, N - 1), max_size=2))
    ]
    mixed = data.draw(st.permutations([*once, *copies, *late]))
    received = collect(NOW, mixed)
    assert same(received, collect(NOW, once))
    assert (received.late, received.duplicates) == (len(late), len(copies))


@given(outcomes)
def test_each_client_is_answered_or_failed_with_a_reason(chosen: list[str]) -> None:
    received = collect(NOW, arrivals_of(chosen))
    assert sorted([*received.client_ids, *received.failures]) == list(range(N))
    assert list(received.client_ids) == [i for i, o in enumerate(chosen) if o == "answers"]
    reasons = {"fails": "no ink", "is lost": NO_ANSWER, "raises": "out of memory"}
    expected = {i: reasons[o] for i, o in enumerate(chosen) if o != "answers"}
    assert dict(received.failures) == expected


def test_what_is_answered_is_what_was_sent() -> None:
    received = collect(NOW, [whole(client) for client in (2, 0, 3, 1)])
    assert torch.equal(received.tensors["update"], UPDATES)
    assert received.counts == {"queries": {0: 7, 1: 8, 2: 9, 3: 10}}


@given(st.integers(0, 10_000), st.booleans())
def test_a_damaged_copy_does_not_hide_a_whole_one(seed: int, first: bool) -> None:
    pair = [spoilt(1, seed), whole(1)]
    others = [whole(client) for client in (0, 2, 3)]
    received = collect(NOW, [*others, *(pair if first else pair[::-1])])
    assert same(received, collect(NOW, [*others, whole(1)]))
    assert received.duplicates == 1


@given(st.integers(0, 10_000))
def test_a_damaged_answer_alone_is_a_failure_that_says_so(seed: int) -> None:
    received = collect(NOW, [spoilt(1, seed)])
    assert received.client_ids == []
    assert received.failures[1].startswith(("malformed reply: ", "unreadable"))


@pytest.mark.parametrize("others", [(), (0, 2, 3)], ids=["alone", "among others"])
@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"else": torch.zeros(D)}, "there is no tensor 'update'"),
        ({"update": torch.zeros(D - 1)}, r"update has shape [2] and torch.float32, not [3]"),
        ({"update": torch.zeros(1, D)}, r"update has shape [1, 3]"),
        ({"update": torch.tensor(1.0)}, r"update has shape []"),
        ({"update": torch.zeros(D, dtype=torch.int64)}, "torch.int64"),
        ({"update": torch.zeros(D, dtype=torch.complex64)}, "torch.complex64"),
    ],
)
def test_what_is_not_expected_is_rejected_with_the_reason(
    others: tuple[int, ...], tensors: dict[str, torch.Tensor], reason: str
) -> None:
    received = collect(NOW, [whole(1, **tensors), *(whole(client) for client in others)])
    assert tuple(received.client_ids) == others
    assert received.failures[1].startswith("malformed reply: ")
    assert reason in received.failures[1]
    assert received.counts["queries"][1] == 8, "its queries were asked all the same"


def test_misfits_are_those_who_differ_from_the_majority() -> None:
    odd = {"update": UPDATES[2], "note": torch.zeros(1)}
    received = collect(NOW, [*(whole(client) for client in (0, 1, 3)), whole(2, **odd)])
    assert list(received.client_ids) == [0, 1, 3]
    assert "most sent update: [3] torch.float64" in received.failures[2]


def test_strangers_are_ignored() -> None:
    received = collect(NOW, [whole(1), Arrival(77, whole(2).content), Arrival(-1, error="who?")])
    assert list(received.client_ids) == [1]
    assert set(received.failures) == {0, 2, 3}


@pytest.mark.parametrize("part", ["tensors", "counts", "seal"])
def test_an_answer_without_one_of_its_parts_is_a_failure(part: str) -> None:
    content = whole(1).content
    assert content is not None
    del content[part]
    assert collect(NOW, [Arrival(1, content)]).client_ids == []


def test_a_name_that_looks_like_two_tensors_is_a_misfit() -> None:
    one = torch.ones(1)
    two = [whole(client, a=one, b=one) for client in (0, 1, 3)]
    received = collect(UNTOLD, [*two, whole(2, **{"a: [1] torch.float32, b": one})])
    assert list(received.client_ids) == [0, 1, 3]


def test_a_damaged_copy_does_not_hide_a_failure_and_its_counts() -> None:
    pair = [Arrival(1, error="unreadable"), failing(1)]
    for received in (collect(NOW, pair), collect(NOW, pair[::-1])):
        assert received.counts == {"queries": {1: 101}}
        assert received.failures[1] == "no ink"


def test_a_failure_whose_record_is_renamed_on_the_way_is_damaged() -> None:
    content = failing(1).content
    assert content is not None
    renamed = {("fbilure" if name == "failure" else name): of for name, of in content.items()}
    received = collect(UNTOLD, [Arrival(1, RecordDict(renamed))])
    assert received.client_ids == []


def test_a_type_that_is_no_text_is_a_failure() -> None:
    array = Array(np.zeros(D))
    array.stype = "\ud800"
    content = RecordDict({"tensors": ArrayRecord({"update": array})})
    content["counts"], content["seal"] = whole(1).content["counts"], whole(1).content["seal"]  # type: ignore[index]
    assert collect(NOW, [Arrival(1, content)]).client_ids == []


def test_a_seal_makes_rubbish_whole_but_not_fitting() -> None:
    content = whole(1).content
    assert content is not None
    content["tensors"] = ArrayRecord({"update": Array(np.full(D + 1, np.nan))})
    seal_answer(content, NOW.moment.token)
    assert "shape [4]" in collect(NOW, [Arrival(1, content)]).failures[1]
