"""Files are whole or as before; a directory has one writer; a full disk is a sentence."""

import contextlib
import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fedzo.errors import ConfigError, StorageError
from fedzo.records.history import RoundRecord, append_history, write_history
from fedzo.records.lock import LOCK, DirectoryLock, locked
from fedzo.records.storage import remove_leftovers, replacing, storing, write_whole
from fedzo.records.tensor_file import write_tensors


def test_a_file_is_replaced_in_one_step_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as fresh:
        fresh.write_text(f"half {1 / 0}")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"


def test_links_are_followed_and_devices_stay(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    write_whole(Path("/dev/null"), "nothing")
    assert Path("/dev/null").is_char_device()


def test_what_a_kill_leaves_is_removed(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "a") as fresh:
            fresh.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
def test_what_the_disk_says_is_a_sentence(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(StorageError, match=r"a cannot be written: .*; make room"),
        storing(tmp_path / "a"),
    ):
        raise OSError(number, os.strerror(number))


def test_a_full_disk_names_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "history.jsonl"
    write_history(path, [RoundRecord(round_index=0)])
    monkeypatch.setattr("fedzo.records.history._write", full)
    for write in (write_history, append_history):
        with pytest.raises(StorageError, match=r"history\.jsonl cannot be written: No space left"):
            write(path, [RoundRecord(round_index=1)])
    assert [p.name for p in tmp_path.iterdir()] == ["history.jsonl"]


def test_a_directory_has_one_writer_who_is_named(tmp_path: Path) -> None:
    own = f"in use by another run .process {os.getpid()}."
    with locked(tmp_path), pytest.raises(ConfigError, match=own):
        DirectoryLock(tmp_path).acquire()
    assert not list(tmp_path.iterdir())


def test_what_is_refused_leaves_no_directory(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).exists()
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["kept"]


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        DirectoryLock(tmp_path).acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / LOCK).read_text() == f"{child}\n"
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
    assert not list(tmp_path.iterdir())


def test_programs_that_are_started_do_not_hold_the_lock(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    assert lock._handle is not None
    assert not os.get_inheritable(lock._handle)
    lock.release()


def test_what_a_kill_leaves_of_tensors_is_removed(tmp_path: Path) -> None:
    """The library that writes them has files of its own, under names of its own."""
    found = 0
    for _ in range(20):
        child = os.fork()
        if child == 0:
            with replacing(tmp_path / "a") as fresh:
                write_tensors(fresh, {"x": torch.zeros(2_000_000)}, "{}")
            os._exit(0)
        while not list(tmp_path.iterdir()) and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        (tmp_path / "a").unlink(missing_ok=True)
        found += len(list(tmp_path.rglob("*")))
        remove_leftovers(tmp_path)
        assert not list(tmp_path.iterdir())
    assert found >= 5
