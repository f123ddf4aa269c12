"""A run of another process, seen from its directory: its records, and whether it has ended."""

from pathlib import Path
from typing import Literal

from fedzo.errors import ConfigError
from fedzo.records.following import HistoryFollower
from fedzo.records.lock import LOCK, holder_of
from scenarios.runs.experiment import Experiment
from scenarios.runs.extension import EXPERIMENT
from scenarios.runs.foreign import other_kind
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
            remedy = other_kind(directory) or "name the --out of a run that has begun"
            if below:
                remedy = f"watch one of the {len(below)} below it, such as {below[0].parent}"
            raise ConfigError(f"{directory} holds no run (no {EXPERIMENT}); {remedy}")
        self._above = None if self.path == directory else directory  # where a deployment works
        self.experiment: Experiment = read_experiment(self.path / EXPERIMENT)
        self.history = HistoryFollower(self.path / HISTORY)

    @property
    def life(self) -> Life:
        """Whether the run goes on, and else how it ended."""
        at_work = self._above is not None and holder_of(self._above / LOCK) is not None
        return "running" if at_work else life_of(self.path)


def life_of(run: Path) -> Life:
    """Return whether the run in a directory goes on, by the lock it holds, else how it ended."""
    if holder_of(run / LOCK) is not None:
        return "running"
    if (run / ERROR).exists():
        return "failed"
    return "ended" if (run / RESULT).exists() else "killed"
