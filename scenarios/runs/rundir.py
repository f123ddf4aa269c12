"""A run's directory: experiment.toml, history.jsonl, checkpoint/, figure.png.

The history is written before the checkpoint that covers it, and cut back to the checkpoint on
resume: a run that is killed anywhere goes on from a consistent state.
"""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from jaxtyping import Float
from torch import Tensor

from fedzo.errors import CheckpointError, ConfigError, FedzoWarning
from fedzo.privacy.accountant import Ledger
from fedzo.protocol.exchange import ClientState
from fedzo.records.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    flatten_state,
    has_checkpoint,
    load_checkpoint,
    pack_client_states,
    restore_previous,
    restore_state,
    unpack_client_states,
)
from fedzo.records.checkpoint_files import CURRENT, OLDER, PREVIOUS, remove_unused
from fedzo.records.history import RoundRecord, append_history, read_history, write_history
from fedzo.records.lock import LOCK, DirectoryLock
from fedzo.records.storage import LEFTOVER, remove_leftovers, write_whole
from scenarios.runs.experiment import Experiment
from scenarios.runs.experiment_file import check_same, sealed_toml
from scenarios.runs.own_code import keep_code
from strategies.core.driver import Snapshot
from strategies.core.spending import Spent

CHECKPOINT = "checkpoint"
CHECKPOINT_EVERY_S = 0.5
SPENT = "spent"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: its records, the solved problems, the snapshot inside the current.

    spent: what the solved problems have released, where that is counted.
    """

    records: Sequence[RoundRecord] = ()
    solutions: Sequence[Float[Tensor, " d"]] = ()
    snapshot: Snapshot | None = None
    client_states: Mapping[int, ClientState] = field(default_factory=dict)
    run_name: str = ""
    spent: Spent | None = None


def new_run_name() -> str:
    """Return a name under which clients keep what belongs to a run, unlike any other."""
    return uuid4().hex


class RunDirectory:
    """Writes what a run leaves behind, and reads it again."""

    def __init__(self, path: Path, experiment: Experiment) -> None:
        self.path = path
        self._experiment = experiment
        self._pending: list[RoundRecord] = []
        self._count = 0
        self._saved_at = 0.0
        self._run_name = new_run_name()
        # What clients keep themselves they keep for the last round only, and a private round that
        # is repeated with other noise would be released twice and counted once.
        kept_by_clients = experiment.engine in ("flower", "superlink")
        self._unrepeatable = experiment.settings.get("strategy.noise_source") == "os"
        self._checkpoints = CheckpointWriter(path / CHECKPOINT, whole=kept_by_clients)
        self._every_s = 0.0 if kept_by_clients or self._unrepeatable else CHECKPOINT_EVERY_S
        self._toml = path / "experiment.toml"
        self._lock = DirectoryLock(path)

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    def open(self, *, resume: bool) -> None:
        """Make the directory ready and keep others out; `close` lets them in again.

        Raises ConfigError rather than overwrite or mix runs, or write where another process does.
        """
        self._check(resume)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise self._cannot_be_written(error) from error
        try:
            self._check(resume)  # again: nobody else changes it now
            for folder in (self.path, self.path / CHECKPOINT, self.path / "clients"):
                remove_leftovers(folder)
            remove_unused(self.path / CHECKPOINT)
            keep_code(self.path, self._experiment)
            write_whole(self._toml, sealed_toml(self._experiment.to_toml()))
        except OSError as error:
            self.close()
            raise self._cannot_be_written(error) from error
        except BaseException:
            self.close()
            raise

    @contextmanager
    def held(self, *, resume: bool) -> Iterator[None]:
        """Open the directory while the block runs."""
        self.open(resume=resume)
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """Let others work here."""
        self._lock.release()

    def _check(self, resume: bool) -> None:
        """Raise ConfigError unless the directory is free for this run."""
        if self._toml.exists() and not resume:
            raise ConfigError(
                f"--out {self.path} already holds a run; add --resume to go on, delete it, or name"
                " another"
            )
        if not self._toml.exists() and self.path.is_dir() and not is_free(self.path):
            raise ConfigError(
                f"--out {self.path} is not empty and holds no run; name a new directory"
            )
        if self._toml.exists():
            check_same(self._toml, self._experiment.to_toml())

    def _cannot_be_written(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"--out {self.path} cannot be written: {error.strerror}; name another directory"
        )

    def load(self, empty_state: Any) -> Position:
        """Return where the run stands; `empty_state` is any state of its strategy.

        Raises CheckpointError when what lies there is damaged, or no run's.
        """
        if not has_checkpoint(self.path / CHECKPOINT):
            write_history(self.history, [])
            return Position(run_name=self._run_name)
        checkpoint = self._newest_whole()
        try:
            return self._position(checkpoint, empty_state)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.path / CHECKPOINT} is not of a run ({error!r}); start again in an empty"
                " directory"
            ) from error

    def _newest_whole(self) -> Checkpoint:
        """Return the checkpoint; where it is damaged, the one before, and say so."""
        folder = self.path / CHECKPOINT
        try:
            return load_checkpoint(folder)
        except CheckpointError as error:
            if self._unrepeatable:
                raise CheckpointError(
                    f"{folder / CURRENT} is damaged, and with strategy.noise_source=os a run cannot"
                    " go on from the one before: a round would be released twice and counted once;"
                    " restore the file, or start again in an empty directory"
                ) from error
            if not any(has_checkpoint(folder, name=name) for name in (PREVIOUS, OLDER)):
                raise
            checkpoint = restore_previous(folder)
            warnings.warn(
                f"{folder / CURRENT} is damaged; the run goes on from the checkpoint before it",
                FedzoWarning,
                stacklevel=2,
            )
            return checkpoint

    def _position(self, checkpoint: Checkpoint, empty_state: Any) -> Position:
        facts = checkpoint.facts
        count, self._run_name = int(facts["num_records"]), str(facts["run_name"])
        records = read_history(self.history)[:count] if self.history.exists() else []
        if len(records) < count:
            raise CheckpointError(
                f"{self.history} holds {len(records)} records and the checkpoint speaks of"
                f" {count}; restore the file, or start again in an empty directory"
            )
        solutions = [checkpoint.tensors[f"solution.{k}"] for k in range(facts["num_solutions"])]
        snapshot, states, spent = None, {}, None
        if facts["within"]:
            state = restore_state(empty_state, checkpoint)
            states = unpack_client_states(checkpoint.tensors)
            snapshot = Snapshot(records[-1], state, facts["stop"])
        else:
            spent = _spent(checkpoint)
        write_history(self.history, records)
        self._count = count
        return Position(records, solutions, snapshot, states, self._run_name, spent)

    def add(
        self,
        snapshot: Snapshot,
        solutions: Sequence[Float[Tensor, " d"]],
        states: Mapping[int, ClientState],
    ) -> None:
        """Take in a round; write a checkpoint if the last one is old."""
        self._pending.append(snapshot.record)
        if time.monotonic() - self._saved_at < self._every_s:
            return
        part = flatten_state(snapshot.state)
        facts = {**part.facts, "within": True, "stop": snapshot.stop}
        self._save({**part.tensors, **pack_client_states(states)}, facts, solutions)

    def close_problem(
        self, solutions: Sequence[Float[Tensor, " d"]], spent: Spent | None = None
    ) -> None:
        """Write a checkpoint at the end of a problem."""
        part = flatten_state(spent, SPENT) if spent else Checkpoint({}, {})
        self._save(part.tensors, {**part.facts, "within": False}, solutions)

    def _save(
        self,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        solutions: Sequence[Float[Tensor, " d"]],
    ) -> None:
        append_history(self.history, self._pending)
        self._count += len(self._pending)
        self._pending.clear()
        named = {f"solution.{k}": x for k, x in enumerate(solutions)}
        counts = {"num_records": self._count, "num_solutions": len(solutions)}
        facts = {**facts, **counts, "run_name": self._run_name}
        self._checkpoints.save(Checkpoint({**tensors, **named}, facts))
        self._saved_at = time.monotonic()


def _spent(checkpoint: Checkpoint) -> Spent | None:
    """Return what was spent by the end of a problem; None where nothing is counted."""
    counted = any(name.startswith(f"{SPENT}.") for name in checkpoint.facts)
    return restore_state(Spent(Ledger.empty()), checkpoint, SPENT) if counted else None


def is_free(directory: Path) -> bool:
    """Return whether nothing but a lock, or what a killed process left of a file, lies here."""
    return all(path.name == LOCK or path.name.endswith(LEFTOVER) for path in directory.iterdir())


def find_runs(directories: list[Path]) -> dict[str, list[Any]]:
    """Return histories by label: the directory of the run, or the one above seed-N."""
    runs: dict[Path, list[Any]] = {}
    for directory in directories:
        histories = sorted(directory.rglob("history.jsonl"))
        if not histories:
            raise ConfigError(
                f"{directory} holds no history.jsonl; name a directory written by --out"
            )
        for path in histories:
            home = path.parent.parent if path.parent.name.startswith("seed-") else path.parent
            runs.setdefault(home, []).append(read_history(path))
    names = [home.name for home in runs]
    return {
        home.name if home.name and names.count(home.name) == 1 else str(home): histories
        for home, histories in runs.items()
    }
