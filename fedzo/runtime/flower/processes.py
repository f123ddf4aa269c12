"""Processes of a trial: a free port, signals to all that one of them has started, and a watch.

Run as a program with a mark, it waits until whoever holds its input ends, and kills what is marked.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MARK = "FEDZO_TRIAL_PROCESS"
"""The environment variable by which descendants are known, whoever their parent is by now."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def signal_all(process: subprocess.Popen[bytes], mark: str, number: signal.Signals) -> None:
    """Signal a process and everything it has started, in whatever session that is by now."""
    marked = [pid for pid in _all_pids() if _environment_has(pid, mark)]
    for pid in {process.pid, *marked}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def start_watch(directory: Path) -> subprocess.Popen[bytes]:
    """Start the process that kills all of a trial when this one ends, even by SIGKILL."""
    return subprocess.Popen(
        [sys.executable, __file__, f"{directory}:"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end_watch(watch: subprocess.Popen[bytes]) -> None:
    """End the watch: what it watched over was stopped."""
    watch.kill()
    watch.wait()
    if watch.stdin is not None:
        watch.stdin.close()


def _watch(mark: str) -> None:
    sys.stdin.buffer.read()
    for _ in range(10):  # what is being started now is marked a moment later
        for pid in _all_pids():
            if _environment_has(pid, mark, ends=False):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _environment_has(pid: int, mark: str, *, ends: bool = True) -> bool:
    """Return whether a process has the mark, or with `ends=False` one that begins so."""
    wanted = f"{MARK}={mark}" + "\0" * ends
    try:
        return wanted.encode() in Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
    except OSError:  # it has ended, or is not ours to look into
        return False


if __name__ == "__main__":
    _watch(sys.argv[1])
