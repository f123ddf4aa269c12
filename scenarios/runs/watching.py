"""A run of another process, seen from its directory: its records, and whether it has ended."""

import os
from pathlib import Path
from typing import Literal

from fedzo.errors import ConfigError
from fedzo.records.following import HistoryFollower
from fedzo.records.lock import LOCK
from scenarios.runs.experiment import Experiment
from scenarios.runs.extension import EXPERIMENT
from scenarios.runs.run_result import ERROR, RESULT
from scenarios.runs.rundir import HISTORY
from scenarios.runs.stored import read_experiment

Life = Literal["running", "ended", "failed", "killed"]


class Watched:
    """A run's directory, or one above it in which a deployment has put the run."""

    def __init__(self, directory: Path) -> None:
        inner = directory / "run"
        self.path = directory if (directory / EXPERIMENT).is_file() else inner
        if not (self.path / EXPERIMENT).is_file():
            below = sorted(directory.rglob(EXPERIMENT)) if directory.is_dir() else []
            remedy = "name the --out of a run that has begun"
            if below:
                remedy = f"watch one of the {len(below)} below it, such as {below[0].parent}"
            raise ConfigError(f"{directory} holds no run (no {EXPERIMENT}); {remedy}")
        self.experiment: Experiment = read_experiment(self.path / EXPERIMENT)
        self.history = HistoryFollower(self.path / HISTORY)

    @property
    def life(self) -> Life:
        """Whether the run goes on, and else how it ended."""
        return life_of(self.path)


def life_of(run: Path) -> Life:
    """Return whether the run in a directory goes on, by the lock it holds, else how it ended."""
    if holder_of(run / LOCK) is not None:
        return "running"
    if (run / ERROR).exists():
        return "failed"
    return "ended" if (run / RESULT).exists() else "killed"


def holder_of(lock: Path) -> str | None:
    """Return the id of the process that a lock names, "" for one about to write it.

    None where there is no such process: a killed one leaves its lock.
    """
    try:
        holder = lock.read_text().strip()
        if holder.isdigit():
            os.kill(int(holder), 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:  # it is there, and another user's
        return holder
    return holder
