"""Files on disk: whole or as they were before, whatever happens while they are written.

A file is written under a name of its own beside its place, brought to the disk, and put in its
place in one step. What a killed process leaves of that ends in `LEFTOVER`, and whoever works in
the directory next removes it.
"""

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from fedzo.errors import ConfigError, StorageError

LEFTOVER = ".unfinished"
_BLOCK = 1 << 16


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing in a run that has started into a StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(Path(error.filename or path), error) from error


def require_place(path: Path) -> None:
    """Raise ConfigError unless a file can have this path: a folder is there, and none is in it."""
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigError(f"{path} is no file in a folder: make {path.parent} first, and name one")


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the error for a file that the system did not let us write."""
    return StorageError(
        f"{path} cannot be written: {error.strerror or error}; make room or mend it, and go on with"
        " --resume"
    )


def cut_to_lines(path: Path) -> None:
    """Take off what is no whole line at the end: the disk was full, or the process was killed."""
    if not path.exists():
        return
    with path.open("rb") as file:
        begin = end = file.seek(0, os.SEEK_END)
        while begin > 0:
            begin, before = max(0, begin - _BLOCK), begin
            file.seek(begin)
            newline = file.read(before - begin).rfind(b"\n")
            if newline >= 0:
                begin += newline + 1
                break
    if begin < end:
        os.truncate(path, begin)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name to write to; it takes the place of `path` when all went well.

    The name is the process's and thread's own, so that several may write the same file at once.
    Links are followed, and devices and pipes written to as they are.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}{LEFTOVER}")
    try:
        yield fresh
        sync(fresh)
        fresh.replace(path)
        sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # the error that brought us here is the one to tell
            fresh.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file by this content."""
    with replacing(path) as fresh:
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256_of(path: Path) -> str:
    """Return the digest of what a file holds, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or a directory's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(directory: Path) -> None:
    """Remove what killed processes left here; only for whoever works here alone."""
    for path in directory.glob(f"*{LEFTOVER}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
