"""A run's directory: experiment.toml, history.jsonl, checkpoint/, x.npy, best_x.npy, figure.png.

The history is written before the checkpoint that covers it, and cut back to the checkpoint on
resume: a run that is killed anywhere goes on from a consistent state.
"""

import errno
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from fedzo.errors import CheckpointError, ConfigError, FedzoWarning
from fedzo.protocol.exchange import ClientState
from fedzo.records.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    has_checkpoint,
    load_checkpoint,
    restore_previous,
)
from fedzo.records.checkpoint_files import CURRENT, OLDER, PREVIOUS, remove_unused
from fedzo.records.history import RoundRecord, append_history, write_history
from fedzo.records.lock import LOCK, DirectoryLock
from fedzo.records.run_log import LOGGER
from fedzo.records.storage import LEFTOVER, remove_leftovers, write_whole
from scenarios.runs.environment import ENVIRONMENT, note_environment
from scenarios.runs.experiment import Experiment
from scenarios.runs.experiment_file import sealed_toml
from scenarios.runs.extension import CHECKPOINT, EXPERIMENT, require_same_or_extendable
from scenarios.runs.own_code import CODE, DATA, keep_code, keep_data
from scenarios.runs.position import (
    Found,
    Position,
    ended,
    position_in,
    records_of,
    with_found,
    within,
)
from scenarios.runs.run_result import ERROR, RESULT
from strategies.core.driver import Snapshot
from strategies.core.spending import Spent

HISTORY = "history.jsonl"
CHECKPOINT_EVERY_S = 0.5
_FULL = (errno.ENOSPC, errno.EDQUOT)


def new_run_name() -> str:
    """Return a name under which clients keep what belongs to a run, unlike any other."""
    return uuid4().hex


class RunDirectory:
    """Writes what a run leaves behind, and reads it again.

    shown: what messages call it, where that is not its path.
    """

    def __init__(
        self,
        path: Path,
        experiment: Experiment,
        *,
        num_problems: int = 1,
        shown: Path | None = None,
    ) -> None:
        self.path, self.shown = path, shown or path
        self._experiment = experiment
        self._num_problems = num_problems
        self._pending: list[RoundRecord] = []
        self._count, self._rounds = 0, 0
        self._saved_at = 0.0
        self._run_name = new_run_name()
        # What clients keep themselves they keep for the last round only, and a private round that
        # is repeated with other noise would be released twice and counted once.
        kept_by_clients = experiment.engine in ("flower", "superlink")
        self._unrepeatable = experiment.settings.get("strategy.noise_source") == "os"
        self._checkpoints = CheckpointWriter(path / CHECKPOINT, whole=kept_by_clients)
        self._every_s = 0.0 if kept_by_clients or self._unrepeatable else CHECKPOINT_EVERY_S
        self._toml = path / EXPERIMENT
        self._lock = DirectoryLock(path)

    @property
    def history(self) -> Path:
        return self.path / HISTORY

    def open(self, *, resume: bool) -> None:
        """Make the directory ready and keep others out; `close` lets them in again.

        Raises ConfigError rather than overwrite or mix runs, or write where another process does.
        """
        self.require_free(resume=resume)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise self._cannot_be_written(error) from error
        try:
            self.require_free(resume=resume)  # again: nobody else changes it now
            for folder in (self.path, self.path / CHECKPOINT, self.path / "clients"):
                remove_leftovers(folder)
            remove_unused(self.path / CHECKPOINT)
            keep_data(self.path, self._experiment)
            keep_code(self.path, self._experiment)
            write_whole(self._toml, sealed_toml(self._experiment.to_toml()))
            note_environment(self.path)
        except OSError as error:
            self.close()
            raise self._cannot_be_written(error) from error
        except BaseException:
            self.close()
            raise

    @contextmanager
    def held(self, *, resume: bool) -> Iterator[None]:
        """Open the directory while the block runs; one whose settings cannot be run is emptied."""
        begun = self._toml.exists()
        self.open(resume=resume)
        try:
            yield
        except ConfigError:
            if not begun and self._rounds <= 1:  # F at the start alone
                self._withdraw()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Let others work here."""
        self._lock.release()

    def _withdraw(self) -> None:
        """Remove what a run has written that has not got beyond its start, if nobody else has."""
        folders, files = (
            (CHECKPOINT, "clients"),
            (HISTORY, CODE, DATA, ENVIRONMENT, ERROR, EXPERIMENT),
        )
        if {path.name for path in self.path.iterdir()} - {*folders, *files, LOCK}:
            return
        for folder in folders:
            shutil.rmtree(self.path / folder, ignore_errors=True)
        for name in files:
            (self.path / name).unlink(missing_ok=True)

    def require_free(self, *, resume: bool) -> None:
        """Raise ConfigError unless the directory is free for this run."""
        if self._toml.exists() and not resume:
            raise ConfigError(
                f"--out {self.shown} already holds a run; add --resume to go on, delete it, or name"
                " another"
            )
        if not self._toml.exists() and self.path.is_dir() and not is_free(self.path):
            raise ConfigError(
                f"--out {self.shown} is not empty and holds no run; name a new directory"
            )
        if self._toml.exists():
            require_same_or_extendable(self.path, self._experiment, self._num_problems)

    def _cannot_be_written(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"--out {self.shown} cannot be written: {error.strerror};"
            f" {'make room' if error.errno in _FULL else 'name another directory'}"
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
        records = records_of(checkpoint, self.history)
        position = position_in(checkpoint, records, empty_state, self._experiment.num_rounds)
        if self.history.exists() and self.history.read_bytes().count(b"\n") > len(records):
            (self.path / RESULT).unlink(missing_ok=True)  # it speaks of rounds that run again
        write_history(self.history, records)
        self._count, self._run_name = len(records), position.run_name
        return position

    def add(self, snapshot: Snapshot, found: Found, states: Mapping[int, ClientState]) -> None:
        """Take in a round; write a checkpoint if the last one is old."""
        self._pending.append(snapshot.record)
        self._rounds += 1
        if time.monotonic() - self._saved_at >= self._every_s:
            self._save(within(snapshot, states), found)

    def flush(self) -> None:
        """Write the records of a run that fails; it goes on from the checkpoint before them."""
        append_history(self.history, self._pending)
        self._pending.clear()

    def close_problem(
        self,
        found: Found,
        last: Snapshot,
        states: Mapping[int, ClientState],
        spent: Spent | None = None,
    ) -> None:
        """Write a checkpoint at the end of a problem; after the last, one that can be extended."""
        over = len(found.solutions) == self._num_problems
        self._save(ended(last, spent, states if over else None), found)

    def _save(self, part: Checkpoint, found: Found) -> None:
        append_history(self.history, self._pending)
        self._count += len(self._pending)
        self._pending.clear()
        rounds = self._experiment.num_rounds
        self._checkpoints.save(with_found(part, found, self._count, self._run_name, rounds))
        self._saved_at = time.monotonic()
        LOGGER.debug("checkpoint after %s records in %s", self._count, self.path)


def require_begun(out: Path | None, resume: bool) -> None:
    """Raise ConfigError where a run is to go on that nobody has begun."""
    if resume and out is None:
        raise ConfigError(
            "resume needs the directory of the run: --resume DIR, or --out DIR --resume"
        )
    if resume and out is not None and not (out / EXPERIMENT).exists():
        raise ConfigError(
            f"--resume: {out} holds no run; leave --resume out, or name its directory"
        )


def is_free(directory: Path) -> bool:
    """Return whether nothing lies here but a lock, why a run failed, or leftovers of a kill."""
    return all(p.name in (LOCK, ERROR) or p.name.endswith(LEFTOVER) for p in directory.iterdir())
