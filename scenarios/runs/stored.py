"""Runs on disk as data: what a run's directory holds, without its scenario and its clients.

    run = fedzo.load_run("runs/first")
    run.best_x, run.settings["client.mu"], run.to_frame()

Reading changes nothing, so a run may be read while it goes on: the history is then as of its last
record, and x as of the last checkpoint, which is at most half a second older.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.config import Scalar
from fedzo.errors import CheckpointError, ConfigError
from fedzo.records.checkpoint import Checkpoint, has_checkpoint, load_checkpoint, restore_state
from fedzo.records.facts import Fact, ShownByFacts
from fedzo.records.history import RoundRecord, read_history
from scenarios.problems.scenario import mean_metrics
from scenarios.runs.best import position_of, unpack_bests
from scenarios.runs.experiment import Experiment, build_strategy
from scenarios.runs.experiment_file import read_untouched
from scenarios.runs.extension import CHECKPOINT, EXPERIMENT
from scenarios.runs.foreign import other_kind
from scenarios.runs.position import Found, found_in, spent_in
from scenarios.runs.run_result import RESULT, RunResult
from scenarios.runs.rundir import HISTORY

if TYPE_CHECKING:
    import pandas as pd

SEED = "seed-"
"""How the directories of a comparison's seeds begin."""


@dataclass(frozen=True, repr=False)
class StoredRun(ShownByFacts):
    """A run that was read from its directory; x and state are read when they are asked for.

    records: the history, a record a round. x, best_x, best_round, queries and load_into are those
    of `result`.
    """

    path: Path
    experiment: Experiment
    records: Sequence[RoundRecord]

    def heading(self) -> str:
        ended = "" if self.finished else ", not finished"
        return f"{self.path}{ended}: {self.numbers.heading()}"

    def facts(self) -> Sequence[Fact]:
        return self.numbers.facts()

    @property
    def settings(self) -> Mapping[str, Scalar]:
        """Every setting by dotted name."""
        return self.experiment.settings

    @property
    def home(self) -> Path:
        """The directory that all seeds of one method share: above seed-N, else the run's own."""
        return self.path.parent if self.path.name.startswith(SEED) else self.path

    @property
    def finished(self) -> bool:
        """Whether the run has ended and left its result."""
        return (self.path / RESULT).exists()

    @property
    def x(self) -> Float[Tensor, " d"]:
        """The last x of the first problem; raises as RunResult.x."""
        return self.result.x

    @property
    def best_x(self) -> Float[Tensor, " d"]:
        """The x of the first problem where F was lowest; raises as RunResult.best_x."""
        return self.result.best_x

    @property
    def best_round(self) -> int | None:
        """The round after which F of the first problem was lowest; None where nobody judged."""
        return self.result.best_round

    @property
    def queries(self) -> int:
        """All queries of all clients for all problems."""
        return self.result.queries

    def load_into(self, module: nn.Module, *, best: bool = False) -> None:
        """Write x, or the best x, into a module; see RunResult.load_into."""
        self.result.load_into(module, best=best)

    @cached_property
    def state(self) -> Any:
        """The strategy's state after the last checkpoint.

        Raises CheckpointError where the directory holds none: after the end of a run of a version
        of fedzo that kept none.
        """
        if not any(name.startswith("state.") for name in self._names):
            raise CheckpointError(
                f"{self.path} keeps no state: the run has not begun, or a version of fedzo that"
                " kept none has finished it; run again in an empty directory"
            )
        strategy = build_strategy(self.experiment)
        start = strategy.init(_like_x(self._checkpoint), self.experiment.num_clients)
        try:
            return restore_state(start, self._checkpoint)
        except (KeyError, TypeError, ValueError) as error:
            raise self._foreign(error) from error

    @cached_property
    def result(self) -> RunResult:
        """What the run has given so far, as `simulate` returns it."""
        return replace(self._result_of(self._found), spent=spent_in(self._checkpoint))

    @cached_property
    def numbers(self) -> RunResult:
        """The result without x: of the history alone, whatever became of the checkpoint."""
        return self._result_of(Found((), unpack_bests({}, {}, self.records)))

    def _result_of(self, found: Found) -> RunResult:
        told = self._told
        last = list({record.problem: record for record in self.records}.values())
        judged = [record for record in last if record.metrics]
        return RunResult(
            self.experiment,
            self.records,
            found.solutions,
            _numbers(told["metrics"]) if "metrics" in told else mean_metrics(judged),
            told.get("stops", []),
            self.path,
            bests=found.bests,
            start=found.start,
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return a pandas table with a row for every record.

        Columns: the run's directory and seed; every number of RoundRecord by its name; metrics.NAME
        for the scenario's; clients_asked, clients_answered, clients_failed; and as mappings from
        client: client_queries (of that round), failures (reasons) and nodes. Numbers are those of
        history.jsonl exactly. Raises ConfigError where pandas is not installed.
        """
        from scenarios.runs.frame import frame_of

        return frame_of(str(self.home), self.experiment.seed, self.records)

    @property
    def _names(self) -> set[str]:
        return {*self._checkpoint.tensors, *self._checkpoint.facts}

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        folder = self.path / CHECKPOINT
        if not has_checkpoint(folder):
            raise CheckpointError(f"{self.path} holds no checkpoint yet, so no x; wait for one")
        return load_checkpoint(folder)

    @cached_property
    def _found(self) -> Found:
        """The x and the best of all problems that have begun."""
        try:
            found = found_in(self._checkpoint, self.records)
            if not self._checkpoint.facts["within"]:
                return found
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._foreign(error) from error
        return replace(found, solutions=[*found.solutions, position_of(self.state)], stops=())

    @cached_property
    def _told(self) -> Mapping[str, Any]:
        """What result.json says of a run that has ended; nothing of one that has not."""
        return _result_in(self.path)

    def require_whole(self, told: Mapping[str, Any]) -> None:
        """Raise CheckpointError for a history that ends before the result of the run does."""
        found = self.numbers.summary()
        behind = [n for n in ("rounds", "queries") if _number(told.get(n)) > found[n]]
        if behind:
            has, had = (" and ".join(f"{of[n]:,} {n}" for n in behind) for of in (found, told))
            raise CheckpointError(
                f"{self.path / HISTORY} ends after {has}, and {RESULT} speaks of {had}: lines are"
                " missing; restore the file, or try `fedzo run --resume`, or run again in an empty"
                " directory"
            )

    def _foreign(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path / CHECKPOINT} is not of this run ({error!r}); restore the directory"
        )


def _result_in(directory: Path) -> Mapping[str, Any]:
    """Return what result.json says of a run that has ended; nothing of one that has not."""
    path = directory / RESULT
    try:
        told = json.loads(path.read_text()) if path.exists() else {}
        if isinstance(told, dict):
            return told
        raise ValueError("it is no table")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); fedzo run --resume writes it again"
        ) from error


def _numbers(told: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as they were: JSON has no NaN."""
    return {name: math.nan if value is None else value for name, value in told.items()}


def _number(told: object) -> float:
    """Return a number that a file holds, 0 for anything else."""
    return told if isinstance(told, int | float) else 0


def load_run(directory: Path | str) -> StoredRun:
    """Read the run in a directory that `--out`, or `out=`, has named.

    Raises ConfigError for a directory that holds no run or whose experiment.toml was changed, and
    CheckpointError for a damaged history.
    """
    path = Path(directory)
    toml = path / EXPERIMENT
    if not toml.is_file():
        inside = sorted(path.rglob(EXPERIMENT)) if path.is_dir() else []
        remedy = other_kind(path) or "name a directory written by --out"
        if inside:
            remedy = f"it has {len(inside)} below it, such as {inside[0].parent}: use load_runs"
        raise ConfigError(f"{path} holds no run (no {EXPERIMENT}); {remedy}")
    experiment, told = read_experiment(toml), _result_in(path)  # before what may still be written
    run = StoredRun(path, experiment, read_history(path / HISTORY))
    run.require_whole(told)
    return run


def load_runs(*directories: Path | str) -> list[StoredRun]:
    """Read all runs in and below directories, each once, by method and seed.

    Raises ConfigError for a directory without any, and as load_run does.
    """
    found: dict[Path, StoredRun] = {}
    for directory in directories:
        histories = sorted(Path(directory).rglob(HISTORY))
        if not histories:
            raise ConfigError(f"{directory} holds no {HISTORY}; name a directory written by --out")
        for path in histories:
            found.setdefault(path.parent.resolve(), load_run(path.parent))
    order = {run.home: number for number, run in reversed([*enumerate(found.values())])}
    return sorted(found.values(), key=lambda run: (order[run.home], run.experiment.seed))


def by_label(runs: Sequence[StoredRun]) -> dict[str, list[StoredRun]]:
    """Return runs by label: the name of their home, or its path where names repeat."""
    homes: dict[Path, list[StoredRun]] = {}
    for run in runs:
        homes.setdefault(run.home, []).append(run)
    names = [home.name for home in homes]
    return {
        home.name if home.name and names.count(home.name) == 1 else str(home): found
        for home, found in homes.items()
    }


def read_experiment(toml: Path) -> Experiment:
    """Return the experiment of a run; raises ConfigError where its file was changed or is none."""
    try:
        return Experiment.from_toml(read_untouched(toml))
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{toml} is no experiment that fedzo has written ({error!r}); restore it"
        ) from error
    except OSError as error:
        raise ConfigError(f"{toml} cannot be read: {error.strerror}") from error


def _like_x(checkpoint: Checkpoint) -> Tensor:
    """Return a vector of x's length and type, without numbers where it is in modules."""
    facts, tensors = checkpoint.facts, checkpoint.tensors
    if "state.dim" in facts:
        return torch.empty(int(facts["state.dim"]), device="meta")
    names = ("state.x", *(n for n in tensors if n.startswith(("best.", "solution."))))
    return next(tensors[name] for name in names if name in tensors)
