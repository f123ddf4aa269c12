"""Who works in a directory: the system's lock says so, and no number in a file."""

import os
import shutil
from pathlib import Path

import pytest

from fedzo.errors import ConfigError
from fedzo.records.lock import LOCK, DirectoryLock, holder_of


def test_a_holder_is_seen_as_long_as_it_holds(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    assert holder_of(lock.path) is None
    lock.acquire()
    assert holder_of(lock.path) == str(os.getpid())
    with pytest.raises(ConfigError, match=rf"in use by another run \(process {os.getpid()}\)"):
        DirectoryLock(tmp_path).acquire()
    lock.release()
    assert holder_of(lock.path) is None


def test_what_a_killed_or_copied_run_leaves_is_no_lock(tmp_path: Path) -> None:
    """In a container the next process has the number of the killed one."""
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / LOCK).write_text(f"{os.getpid()}\n")
    assert holder_of(tmp_path / "killed" / LOCK) is None
    (tmp_path / "run").mkdir()
    lock = DirectoryLock(tmp_path / "run")
    lock.acquire()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert holder_of(tmp_path / "copy" / LOCK) is None
    assert holder_of(lock.path) == str(os.getpid())
    lock.release()


def test_looking_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("")
    for _ in range(50):
        assert holder_of(tmp_path / LOCK) is None
        lock = DirectoryLock(tmp_path)
        lock.acquire()
        lock.release()
        (tmp_path / LOCK).write_text("")
