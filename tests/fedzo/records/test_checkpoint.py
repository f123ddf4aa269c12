"""Checkpoints are exact, atomic, and honest about damage."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fedzo.errors import CheckpointError
from fedzo.optimizers import Adam, OptimizerState
from fedzo.records.checkpoint import (
    CURRENT,
    PREVIOUS,
    Checkpoint,
    flatten_state,
    has_checkpoint,
    load_checkpoint,
    pack_client_states,
    restore_state,
    save_checkpoint,
    unpack_client_states,
)
from fedzo.records.tensor_file import read_tensors, write_tensors


@dataclass(frozen=True)
class State:
    x: torch.Tensor
    moments: OptimizerState
    name: str
    level: float


def state() -> State:
    x = torch.tensor([1 / 3, -0.0, 1e-300], dtype=torch.float64)
    return State(x, Adam().step(Adam().init(x), x, x + 1, 0.1)[0], "a", 0.1)


def test_a_nested_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = state()
    save_checkpoint(tmp_path, flatten_state(saved))
    template = State(torch.zeros(3), Adam().init(torch.zeros(3)), "", 0.0)
    back = restore_state(template, load_checkpoint(tmp_path))
    assert back.x.numpy().tobytes() == saved.x.numpy().tobytes()
    assert torch.equal(back.moments.second, saved.moments.second)
    assert (back.name, back.level, back.moments.count) == ("a", 0.1, 1)


def test_views_and_empty_tensors_can_be_saved(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    tensors = {"a": base[:3], "b": base[::2], "c": base, "e": base[:0], "f": torch.empty(0)}
    save_checkpoint(tmp_path, Checkpoint(tensors, {}))
    back = load_checkpoint(tmp_path).tensors
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_the_previous_checkpoint_is_kept(tmp_path: Path) -> None:
    for i in range(3):
        save_checkpoint(tmp_path, Checkpoint({}, {"i": i}))
    assert load_checkpoint(tmp_path).facts["i"] == 2
    assert load_checkpoint(tmp_path, name=PREVIOUS).facts["i"] == 1


@pytest.mark.parametrize("damage", [b"", b"rubbish", b"\xff" * 100])
def test_damage_is_reported_and_the_previous_offered(tmp_path: Path, damage: bytes) -> None:
    for i in range(2):
        save_checkpoint(tmp_path, Checkpoint({"x": torch.ones(2)}, {"i": i}))
    (tmp_path / CURRENT).write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"move .*previous"):
        load_checkpoint(tmp_path)
    (tmp_path / PREVIOUS).write_bytes(damage)
    with pytest.raises(CheckpointError, match="start again"):
        load_checkpoint(tmp_path)


def test_every_cut_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint({"x": torch.ones(4)}, {"i": 0}))
    whole = (tmp_path / CURRENT).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / CURRENT).write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path)


def test_every_flipped_bit_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    wanted = Checkpoint({"x": torch.randn(3), "b": torch.ones(2, dtype=torch.bfloat16)}, {"i": 0})
    save_checkpoint(tmp_path, wanted)
    whole = (tmp_path / CURRENT).read_bytes()
    for bit in range(0, 8 * len(whole), 11):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / CURRENT).write_bytes(bytes(flipped))
        try:
            found = load_checkpoint(tmp_path)
        except CheckpointError:
            continue
        assert found.facts == wanted.facts
        assert all(torch.equal(found.tensors[name], wanted.tensors[name]) for name in ("x", "b"))


def test_checkpoints_without_a_digest_are_read(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / CURRENT, metadata={"facts": '{"i": 3}'})
    assert load_checkpoint(tmp_path).facts == {"i": 3}


@pytest.mark.parametrize("facts", ["[" * 100_000, "9" * 5000, "3", "", "nul"], ids=len)
def test_facts_that_are_none_are_refused(tmp_path: Path, facts: str) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / CURRENT, metadata={"facts": facts})
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path)


def test_nothing_is_left_where_both_names_were_of_one_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint({}, {"i": 0}))
    os.link(tmp_path / CURRENT, tmp_path / PREVIOUS)  # as after a kill between two renames
    save_checkpoint(tmp_path, Checkpoint({}, {"i": 1}))
    assert {path.name for path in tmp_path.iterdir()} == {CURRENT, PREVIOUS}


def test_a_missing_part_names_itself(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint({}, {}))
    with pytest.raises(CheckpointError, match=r"no state\.x"):
        restore_state(state(), load_checkpoint(tmp_path))


def test_absence_is_an_error_that_says_so(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path)


def test_client_states_are_named_and_found() -> None:
    states = {3: {"m": torch.ones(2), "v.w": torch.zeros(1)}, 12: {"m": torch.zeros(2)}}
    back = unpack_client_states({**pack_client_states(states), "state.x": torch.ones(1)})
    assert back.keys() == states.keys()
    assert all(torch.equal(back[c][n], states[c][n]) for c in states for n in states[c])


def test_a_number_whose_stride_means_nothing_is_written(tmp_path: Path) -> None:
    odd = torch.arange(4.0, dtype=torch.float64).view(1, 4)[:, 2]
    assert odd.stride() == (4,)
    write_tensors(tmp_path / "odd.safetensors", {"odd": odd}, "facts")
    held, facts = read_tensors(tmp_path / "odd.safetensors")
    assert (held["odd"].tolist(), facts) == ([2.0], "facts")
