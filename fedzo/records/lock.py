"""A directory's lock: one process writes in it at a time.

The lock is the operating system's, on a file that names its holder, so a killed process holds
nothing and what it leaves of the file disturbs nobody.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from fedzo.errors import ConfigError
from fedzo.records.storage import remove_leftovers

LOCK = "lock"
_LOOKS, _LOOK_S = 5, 0.01


class DirectoryLock:
    """The right to write in a directory, from `acquire` to `release`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock; raises ConfigError with the holder's process id if it is taken."""
        while self._handle is None:
            # Python's handles are not passed on to programs that are started meanwhile.
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._lock(handle)
            except BaseException:
                os.close(handle)
                raise
            if _is_at(handle, self.path):
                self._handle = handle
            else:  # its holder was about to remove it
                os.close(handle)

    def release(self) -> None:
        """Give the lock back, and leave nothing; without the lock, do nothing."""
        if self._handle is None:
            return
        self.path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = None

    def _lock(self, handle: int) -> None:
        for _ in range(_LOOKS):  # who looks whether it is held has it for a moment
            if _taken(handle, fcntl.LOCK_EX):
                break
            time.sleep(_LOOK_S)
        else:
            raise ConfigError(
                f"--out {self.path.parent} is in use by another run (process"
                f" {_named_in(handle) or 'unknown'}); wait until it has ended, or name another"
                " directory"
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)


def holder_of(lock: Path) -> str | None:
    """Return the id of the process that holds a lock, "" for one about to write it.

    None where nobody does: a killed process leaves its file, and a copy of one is no lock.
    """
    try:
        handle = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if _taken(handle, fcntl.LOCK_SH) else _named_in(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(directory: Path | None) -> Iterator[None]:
    """Make a directory and keep others out of it while the block runs; without one, do nothing."""
    if directory is None:
        yield
        return
    new = [place for place in (directory, *directory.parents) if not place.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(directory)
    lock.acquire()
    try:
        remove_leftovers(directory)
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # what was refused before it wrote leaves nothing
            for place in new:
                place.rmdir()


def _taken(handle: int, kind: int) -> bool:
    """Take a lock if nobody else has it; return whether it is taken."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _named_in(handle: int) -> str:
    """Return the id of the process that a lock's file names."""
    return os.pread(handle, 20, 0).decode(errors="replace").strip()


def _is_at(handle: int, path: Path) -> bool:
    """Return whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
