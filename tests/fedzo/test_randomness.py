"""Streams are independent, repeatable, and leave the global states alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.randomness import permutations, stream, streams

parts = st.lists(st.one_of(st.integers(-(2**70), 2**70), st.text(max_size=8)), max_size=4)


@given(st.integers(0, 2**63), parts)
def test_same_parts_give_the_same_bits(seed: int, names: list[int | str]) -> None:
    assert stream(seed, *names).bytes(32) == stream(seed, *names).bytes(32)


@given(parts, parts)
def test_other_parts_give_other_bits(first: list[int | str], second: list[int | str]) -> None:
    same = stream(0, *first).bytes(32) == stream(0, *second).bytes(32)
    assert same == (first == second)


def test_seed_changes_every_stream() -> None:
    assert stream(0, "x", 1).bytes(16) != stream(1, "x", 1).bytes(16)


def test_int_and_text_of_the_same_digits_differ() -> None:
    assert stream(0, 1).bytes(16) != stream(0, "1").bytes(16)


def test_global_states_are_untouched() -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())  # noqa: NPY002
    streams(3, "a", clients=range(5))
    stream(3, "b").standard_normal(10)
    permutations(3, "c", clients=range(5), size=7)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 6), st.integers(1, 3))
def test_rows_are_permutations_and_depend_on_their_client_alone(
    seed: int, size: int, clients: int, count: int
) -> None:
    together = permutations(seed, "p", clients=range(10, 10 + clients), size=size, count=count)
    for i in range(clients):
        alone = permutations(seed, "p", clients=[10 + i], size=size, count=count)
        assert np.array_equal(together[i], alone[0])
        assert np.array_equal(np.sort(alone[0], axis=-1), np.tile(np.arange(size), (count, 1)))


def test_permutations_are_uniform() -> None:
    rows = permutations(0, "u", clients=range(6000), size=3)[:, 0]
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(counts) == 6
    standard_error = (6000 / 6 * 5 / 6) ** 0.5
    assert np.abs(counts - 1000).max() < 5 * standard_error


def test_epochs_of_a_client_differ() -> None:
    rows = permutations(0, "e", clients=[1], size=50, count=2)[0]
    assert not np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("seed", [0, 1])
def test_streams_are_named_by_client(seed: int) -> None:
    one, two = streams(seed, "d", clients=[4, 9])
    assert one.bytes(8) == stream(seed, "d", 4).bytes(8)
    assert two.bytes(8) == stream(seed, "d", 9).bytes(8)
