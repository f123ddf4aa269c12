"""Checkpoints write what changed, and one of them is whole whatever happens to a file."""

import base64
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fedzo.errors import CheckpointError, StorageError
from fedzo.records.checkpoint import (
    MOST_PARTS,
    Checkpoint,
    CheckpointWriter,
    flatten_state,
    has_checkpoint,
    load_checkpoint,
    pack_client_states,
    restore_previous,
)
from fedzo.records.checkpoint_files import CURRENT, HEADS, OLDER, PREVIOUS, remove_unused
from fedzo.records.tensor_file import write_tensors
from strategies.core.table import ClientTable

CLIENTS, ASKED, DIM = 200, 10, 1000
RELEASED = (
    "6AAAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJkaWdlc3QgYW5kIGZhY3RzIjoiMTM1NTljMGMxZWE5YTE0MDJjZWM0ZmMx"
    "MjVlODc5MjYge1wiaVwiOiAzLCBcIndpdGhpblwiOiB0cnVlfSJ9LCJjbGllbnQuMy5jb250cm9sIjp7ImR0eXBlIjoi"
    "RjMyIiwic2hhcGUiOlsxLDJdLCJkYXRhX29mZnNldHMiOlswLDhdfSwic3RhdGUueCI6eyJkdHlwZSI6IkYzMiIsInNo"
    "YXBlIjpbMl0sImRhdGFfb2Zmc2V0cyI6WzgsMTZdfX0gAACAPwAAgD+rqqo+AAAAgA=="
)


class World:
    """What a run of SCAFFOLD has to save: a table with the server, a tensor with each client."""

    def __init__(self, dim: int = DIM, clients: int = CLIENTS) -> None:
        self.drawn, self.dim, self.clients, self.round = random.Random(0), dim, clients, 0
        self.table, self.states = ClientTable.empty(torch.zeros(dim)), {}

    def step(self, asked: int) -> Checkpoint:
        clients = sorted(self.drawn.sample(range(self.clients), asked))
        rows = torch.randn(asked, self.dim)
        self.table = self.table.renewed(clients, rows)
        self.states = {**self.states, **{c: {"v": r} for c, r in zip(clients, rows, strict=True)}}
        self.round += 1
        part = flatten_state(self.table)
        tensors = {**part.tensors, **pack_client_states(self.states)}
        return Checkpoint(tensors, {"i": self.round})


def same(one: Checkpoint, other: Checkpoint) -> bool:
    names = one.tensors.keys() == other.tensors.keys()
    return (
        names
        and one.facts == other.facts
        and all(torch.equal(one.tensors[n], other.tensors[n]) for n in one.tensors)
    )


def size(folder: Path) -> int:
    """Return the bytes of all files; one with several names counts once."""
    return sum({s.st_ino: s.st_size for s in (p.stat() for p in folder.iterdir())}.values())


def begun(writer: CheckpointWriter, first: Checkpoint) -> int:
    """Write the first two checkpoints, which are whole, and return the bytes of both."""
    writer.save(first)
    writer.save(first)
    return size(writer._directory)


def some(folder: Path, count: int, asked: int = 1) -> list[Checkpoint]:
    """Write checkpoints of a small world, the first of all clients, the others of a few."""
    world, writer = World(64, 12), CheckpointWriter(folder)
    made = [world.step(12), *(world.step(asked) for _ in range(count - 1))]
    for one in made:
        writer.save(one)
    return made


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedzo.records.checkpoint.SMALL", 0)
    monkeypatch.setattr("fedzo.records.changes._LONG", 64)


def test_ten_changed_clients_of_two_hundred_are_less_than_a_tenth(tmp_path: Path) -> None:
    world, writer = World(), CheckpointWriter(tmp_path)
    twice = begun(writer, world.step(CLIENTS))
    asked = world.step(ASKED)
    writer.save(asked)
    assert size(tmp_path) - twice < twice / 20
    assert same(load_checkpoint(tmp_path), asked)


def test_a_table_that_grows_in_its_middle_is_written_by_its_new_rows(tmp_path: Path) -> None:
    world, writer = World(), CheckpointWriter(tmp_path)
    twice = begun(writer, world.step(CLIENTS // 2))
    writer.save(world.step(ASKED))
    assert size(tmp_path) - twice < 1.2 * twice / 2 * ASKED / (CLIENTS // 2)


@pytest.mark.usefixtures("_small")
def test_every_checkpoint_and_the_one_before_come_back(tmp_path: Path) -> None:
    world, writer, before = World(64, 12), CheckpointWriter(tmp_path), None
    for i in range(60):
        now = world.step(world.drawn.choice([1, 1, 1, 1, 2, 12]))
        writer.save(now)
        assert same(load_checkpoint(tmp_path), now)
        assert before is None or same(load_checkpoint(tmp_path, name=PREVIOUS), before)
        if i == 30:
            writer = CheckpointWriter(tmp_path)  # as after a resume
        before = now


def test_the_files_stay_few_and_small(tmp_path: Path) -> None:
    world, writer = World(256, CLIENTS), CheckpointWriter(tmp_path)
    first = world.step(CLIENTS)
    whole = sum(tensor.nbytes for tensor in first.tensors.values())
    writer.save(first)
    for _ in range(2 * MOST_PARTS + 5):
        writer.save(world.step(1))
        assert len(list(tmp_path.iterdir())) <= 2 * (MOST_PARTS + 1) + len(HEADS)
        assert size(tmp_path) < 4.5 * whole


@pytest.mark.usefixtures("_small")
def test_what_is_written_whole_leaves_no_part_behind(tmp_path: Path) -> None:
    some(tmp_path, 5)
    assert list(tmp_path.glob("part-*"))
    writer = CheckpointWriter(tmp_path)
    writer.save(Checkpoint({"x": torch.ones(2)}, {"i": 0}))
    writer.save(Checkpoint({"x": torch.ones(1)}, {"i": 1}))
    assert {path.name for path in tmp_path.iterdir()} == {CURRENT, PREVIOUS}


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("count", range(1, 7))
def test_whatever_file_is_damaged_a_checkpoint_is_whole(tmp_path: Path, count: int) -> None:
    run, damaged = tmp_path / "run", tmp_path / "damaged"
    first = CheckpointWriter(run)
    for i in range(2):
        first.save(Checkpoint({"x": torch.ones(2)}, {"i": -i}))
    made = some(run, count)
    files = {path: path.stat().st_ino for path in sorted(run.iterdir())}
    for number in set(files.values()):
        shutil.copytree(run, damaged)
        for path in (path for path in files if files[path] == number):  # all names of one file
            (damaged / path.name).write_bytes(path.read_bytes()[:-1] + b"\xff")
        try:
            assert same(load_checkpoint(damaged), made[-1])
        except CheckpointError:
            back = restore_previous(damaged)
            assert back.facts["i"] < count
            assert load_checkpoint(damaged).facts == back.facts
        shutil.rmtree(damaged)


@pytest.mark.usefixtures("_small")
def test_every_flipped_bit_of_a_part_is_noticed_or_harmless(tmp_path: Path) -> None:
    made = some(tmp_path, 4)
    for path in sorted(tmp_path.iterdir()):
        whole, drawn = path.read_bytes(), random.Random(1)
        for _ in range(40):
            flipped = bytearray(whole)
            flipped[drawn.randrange(len(whole))] ^= 1 << drawn.randrange(8)
            path.unlink()  # other names of the file keep what they had
            path.write_bytes(bytes(flipped))
            try:
                assert same(load_checkpoint(tmp_path), made[-1])
            except CheckpointError:
                continue
        path.write_bytes(whole)


@pytest.mark.usefixtures("_small")
def test_a_part_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    some(tmp_path / "one", 3)
    some(tmp_path / "other", 3, asked=2)
    parts = sorted((tmp_path / "one").glob("part-*"))
    shutil.copy(next((tmp_path / "other").glob("part-*")), parts[0])
    with pytest.raises(CheckpointError, match="another file"):
        load_checkpoint(tmp_path / "one")
    parts[0].unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "one")


class Killed(BaseException):
    """Whoever is killed does nothing more."""


def dying(monkeypatch: pytest.MonkeyPatch, calls: int, error: BaseException) -> None:
    """Let the system's calls that change a directory fail from this one on."""
    left = iter(range(calls))

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def tried(*args: object, **options: object) -> object:
            if next(left, None) is None:
                raise error
            return call(*args, **options)

        return tried

    for name in ("link", "replace", "rename", "unlink", "fsync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


@pytest.fixture(params=[Killed(), OSError(28, "No space left on device")], ids=["kill", "full"])
def error(request: pytest.FixtureRequest) -> Iterator[BaseException]:
    return request.param


@pytest.mark.more
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("last", range(1, 6))
def test_at_every_moment_a_complete_checkpoint_exists(
    tmp_path: Path, error: BaseException, last: int
) -> None:
    world = World(64, 12)
    made = [world.step(12), *(world.step(1) for _ in range(2)), world.step(12), world.step(1)]
    for calls in range(100):
        folder = tmp_path / str(calls)
        writer = CheckpointWriter(folder)
        for one in made[: last - 1]:
            writer.save(one)
        with pytest.MonkeyPatch.context() as patch:
            dying(patch, calls, error)
            try:
                writer.save(made[last - 1])
                break
            except (Killed, StorageError):
                pass
        if has_checkpoint(folder):
            assert load_checkpoint(folder).facts["i"] in (last - 1, last)
        goes_on = writer if isinstance(error, OSError) else CheckpointWriter(folder)
        goes_on.save(made[last - 1])
        assert same(load_checkpoint(folder), made[last - 1])
        assert last == 1 or has_checkpoint(folder, name=PREVIOUS)
    assert calls > 1


@pytest.mark.usefixtures("_small")
def test_nothing_is_removed_while_a_head_cannot_be_read(tmp_path: Path) -> None:
    some(tmp_path, 4)
    kept = {path.name for path in tmp_path.iterdir()}
    whole = (tmp_path / CURRENT).read_bytes()
    (tmp_path / CURRENT).write_bytes(b"torn")
    remove_unused(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
    (tmp_path / CURRENT).write_bytes(whole)
    (tmp_path / f"part-{'0' * 32}.safetensors").write_bytes(b"of a killed process")
    remove_unused(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_checkpoints_of_the_last_release_are_read_and_written_the_same(tmp_path: Path) -> None:
    tensors = {"state.x": torch.tensor([1 / 3, -0.0]), "client.3.control": torch.ones(1, 2)}
    released = base64.b64decode(RELEASED)
    (tmp_path / CURRENT).write_bytes(released)
    found = load_checkpoint(tmp_path)
    assert same(found, Checkpoint(tensors, {"i": 3, "within": True}))
    CheckpointWriter(tmp_path).save(found)
    assert (tmp_path / CURRENT).read_bytes() == released
    assert not (tmp_path / OLDER).exists()


def test_files_of_tensors_may_be_read_by_whom_others_may(tmp_path: Path) -> None:
    write_tensors(tmp_path / "it.safetensors", {"x": torch.zeros(2)}, "{}")
    (tmp_path / "other").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("it.safetensors", "other")]
    assert modes[0] == modes[1]
