"""One question to a command: all of it within a time, its answer within a size, nobody left behind.

The command is started in a process group of its own. When it ends, or has to, whoever is left in
the group is killed, so that a child which holds a pipe open keeps nobody waiting.
"""

import errno
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from fedzo.errors import ObjectiveError
from fedzo.objectives.tries import Final, too_long

_SHORTAGE = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Of processes, memory or files: it may pass."""
_CHUNK = 1 << 16
_GLANCE_S = 0.05
_LAST_WORDS = 200


@dataclass(slots=True)
class _Said:
    """What a command has printed: its answer, and the end of what it has complained."""

    answer: bytearray = field(default_factory=bytearray)
    complaint: bytes = b""


def converse(command: Sequence[str], question: bytes, *, timeout_s: float, limit: int) -> bytes:
    """Return what a command that gets the question on stdin prints on stdout.

    Raises TimeoutExpired when it has not ended after `timeout_s`, Final where the answer is longer
    than `limit` bytes or there is no such program, ObjectiveError for an exit status.
    """
    deadline, said = time.monotonic() + timeout_s, _Said()
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            list(command), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Final(f"does not exist: {error.strerror}") from error
    except OSError as error:
        if error.errno in _SHORTAGE:
            raise
        raise Final(f"cannot be run: {error.strerror}") from error
    with process:
        try:
            _exchange(process, question, said, deadline, limit)
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise subprocess.TimeoutExpired(command[0], timeout_s) from error
        finally:
            _kill(process)
    if status:
        words = " ".join(said.complaint.decode(errors="replace").split())[-_LAST_WORDS:]
        raise ObjectiveError(f"exit status {status}: {words}")
    return bytes(said.answer)


def _exchange(
    process: subprocess.Popen[bytes], question: bytes, said: _Said, deadline: float, limit: int
) -> None:
    """Write the question and read what is printed, until both outputs end or the command does."""
    assert process.stdin is not None
    left = memoryview(question)
    with selectors.DefaultSelector() as selector:
        for stream, event in (
            (process.stdin, selectors.EVENT_WRITE),
            (process.stdout, selectors.EVENT_READ),
            (process.stderr, selectors.EVENT_READ),
        ):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, event)
        while selector.get_map():
            ended = process.poll() is not None
            if ended:
                _kill(process)
            ready = selector.select(0 if ended else _GLANCE_S)
            if ended and not ready:
                return
            if time.monotonic() > deadline:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    left = _write(process.stdin, left)
                    over = not left
                else:
                    over = _read(key.fileobj, process, said, limit)  # type: ignore[arg-type]
                if over:
                    selector.unregister(key.fileobj)
            if not left and not process.stdin.closed:
                process.stdin.close()


def _write(stream: IO[bytes], left: memoryview) -> memoryview:
    """Write a part of the question; returns what is left, nothing where nobody reads any more."""
    try:
        return left[os.write(stream.fileno(), left[:_CHUNK]) :]
    except BrokenPipeError:
        return left[:0]


def _read(stream: IO[bytes], process: subprocess.Popen[bytes], said: _Said, limit: int) -> bool:
    """Take in what has been printed; returns whether that output has ended."""
    part = os.read(stream.fileno(), _CHUNK)
    if stream is process.stderr:
        said.complaint = (said.complaint + part)[-4 * _LAST_WORDS :]
        return not part
    said.answer += part
    if len(said.answer) > limit:
        raise too_long(limit)
    return not part


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill whoever is left in the command's process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
