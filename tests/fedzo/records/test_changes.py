"""A change leads to the same bits, and stores no more than what changed."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from fedzo.records.changes import PLACES, ROWS, WHOLE, apply, change, look_at

WIDE = 128  # float32: rows long enough to be looked up


def rows(numbers: list[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype).unsqueeze(1).repeat(1, WIDE)


def test_a_row_that_moves_is_not_stored_again() -> None:
    before, after = {"t": rows([1, 3, 5])}, {"t": rows([1, 2, 3, 6])}
    made = change(look_at(before), after)
    assert made.tensors.keys() == {f"{ROWS}/t", f"{PLACES}/t"}
    assert torch.equal(made.tensors[f"{ROWS}/t"], rows([2, 6]))
    assert made.tensors[f"{PLACES}/t"].tolist() == [0, 3, 1, 4]
    assert torch.equal(apply(before, made)["t"], after["t"])


def test_the_same_object_is_not_stored_and_what_is_gone_is_named() -> None:
    x = torch.ones(4)
    made = change(look_at({"x": x, "y": x + 1}), {"x": x, "z": x})
    assert made.tensors.keys() == {f"{WHOLE}/z"}
    assert list(made.gone) == ["y"]
    assert apply({"x": x, "y": x + 1}, made).keys() == {"x", "z"}


def test_rows_with_the_same_sum_are_told_apart() -> None:
    row = torch.arange(WIDE, dtype=torch.float32)
    before = torch.stack([row, row + 1])
    made = change(look_at({"t": before}), {"t": torch.stack([row, (row + 1).flip(0)])})
    assert len(made.tensors[f"{ROWS}/t"]) == 1


def test_zeros_of_another_sign_are_fresh_and_a_nan_is_not() -> None:
    before = rows([0.0, torch.nan, 1.0])
    made = change(look_at({"t": before}), {"t": rows([-0.0, torch.nan, 1.0])})
    assert len(made.tensors[f"{ROWS}/t"]) == 1
    assert torch.signbit(apply({"t": before}, made)["t"][0]).all()


@pytest.mark.parametrize("other", [rows([1.0], torch.float64), rows([1.0])[:, 1:], torch.ones(3)])
def test_another_type_or_width_is_stored_whole(other: torch.Tensor) -> None:
    made = change(look_at({"t": rows([1.0])}), {"t": other})
    assert made.tensors.keys() == {f"{WHOLE}/t"}


def test_no_vector_is_kept_alive() -> None:
    seen = look_at({"x": torch.ones(1000)})
    assert seen["x"]() is None


NUMBERS = st.lists(st.integers(0, 5).map(float), max_size=6)
KINDS = st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.complex128])
TABLES = st.dictionaries(st.sampled_from("abc/"), st.tuples(NUMBERS, KINDS, st.booleans()))


def tables(drawn: dict[str, tuple[list[float], torch.dtype, bool]]) -> dict[str, torch.Tensor]:
    made = {name: rows(numbers, kind) for name, (numbers, kind, _) in drawn.items()}
    return {name: made[name].T if drawn[name][2] else made[name] for name in drawn}


@settings(max_examples=60, deadline=None)
@given(TABLES, TABLES)
def test_any_change_leads_to_the_same_bits(one: dict, other: dict) -> None:  # type: ignore[type-arg]
    before, after = tables(one), tables(other)
    found = apply(before, change(look_at(before), after))
    assert found.keys() == after.keys()
    assert all(torch.equal(found[name], after[name]) for name in after)
    assert all(found[name].dtype == after[name].dtype for name in after)
