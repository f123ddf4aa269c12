"""A run's directory: experiment.toml, history.jsonl, checkpoint/, figure.png.

The history is written before the checkpoint that covers it, and cut back to the checkpoint on
resume: a run that is killed anywhere goes on from a consistent state.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from jaxtyping import Float
from torch import Tensor

from fedzo.checkpoint import (
    Checkpoint,
    flatten_state,
    has_checkpoint,
    load_checkpoint,
    pack_client_states,
    restore_state,
    save_checkpoint,
    unpack_client_states,
)
from fedzo.errors import CheckpointError, ConfigError
from fedzo.exchange import ClientState
from fedzo.history import RoundRecord, append_history, read_history, write_history
from fedzo.privacy.accountant import Ledger
from scenarios.experiment import Experiment
from strategies.driver import Snapshot
from strategies.privacy import Spent

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
        unrepeatable = experiment.settings.get("strategy.noise_source") == "os"
        self._every_s = 0.0 if kept_by_clients or unrepeatable else CHECKPOINT_EVERY_S

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    def open(self, *, resume: bool) -> None:
        """Make the directory ready; raises ConfigError rather than overwrite or mix runs."""
        toml = self.path / "experiment.toml"
        if toml.exists() and not resume:
            raise ConfigError(
                f"--out {self.path} already holds a run; add --resume to go on, delete it, or name"
                " another"
            )
        if not toml.exists() and self.path.is_dir() and any(self.path.iterdir()):
            raise ConfigError(
                f"--out {self.path} is not empty and holds no run; name a new directory"
            )
        wanted = self._experiment.to_toml()
        if toml.exists() and (found := toml.read_text()) != wanted:
            raise ConfigError(
                f"--out {self.path} holds another experiment ({_difference(found, wanted)}); resume"
                " with the same settings, or name another directory"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fresh = toml.with_suffix(".new")
            fresh.write_text(wanted)
            fresh.replace(toml)
        except OSError as error:
            raise ConfigError(
                f"--out {self.path} cannot be written: {error.strerror}; name another directory"
            ) from error

    def load(self, empty_state: Any) -> Position:
        """Return where the run stands; `empty_state` is any state of its strategy."""
        if not has_checkpoint(self.path / "checkpoint"):
            write_history(self.history, [])
            return Position(run_name=self._run_name)
        checkpoint = load_checkpoint(self.path / "checkpoint")
        facts = checkpoint.facts
        self._count = int(facts["num_records"])
        self._run_name = facts["run_name"]
        records = read_history(self.history)[: self._count] if self.history.exists() else []
        if len(records) < self._count:
            raise CheckpointError(
                f"{self.history} holds {len(records)} records and the checkpoint speaks of"
                f" {self._count}; restore the file, or start again in an empty directory"
            )
        write_history(self.history, records)
        solutions = [checkpoint.tensors[f"solution.{k}"] for k in range(facts["num_solutions"])]
        if not facts["within"]:
            return Position(records, solutions, run_name=self._run_name, spent=_spent(checkpoint))
        state = restore_state(empty_state, checkpoint)
        states = unpack_client_states(checkpoint.tensors)
        snapshot = Snapshot(records[-1], state, facts["stop"])
        return Position(records, solutions, snapshot, states, self._run_name)

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
        save_checkpoint(self.path / "checkpoint", Checkpoint({**tensors, **named}, facts))
        self._saved_at = time.monotonic()


def _spent(checkpoint: Checkpoint) -> Spent | None:
    """Return what was spent by the end of a problem; None where nothing is counted."""
    counted = any(name.startswith(f"{SPENT}.") for name in checkpoint.facts)
    return restore_state(Spent(Ledger.empty()), checkpoint, SPENT) if counted else None


def _difference(old: str, new: str) -> str:
    """Return the first line that differs."""
    pairs = zip(old.splitlines(), new.splitlines(), strict=False)
    for before, now in pairs:
        if before != now:
            return f"there {before}, now {now}"
    return "its settings differ"


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
