"""Processes of a trial: a free port, and signals to all that one of them has started."""

import contextlib
import os
import signal
import socket
import subprocess
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


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _environment_has(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
    except OSError:  # it has ended, or is not ours to look into
        return False
