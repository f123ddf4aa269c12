"""What runs lie below a directory, and how each of them stands; what is damaged says so.

A directory with an experiment or a history is a run's. One right below the directory that was
named, in and below which there is none, is foreign.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedzo.errors import ConfigError, FedzoError
from fedzo.records.lock import LOCK, holder_of
from scenarios.runs.extension import EXPERIMENT
from scenarios.runs.foreign import other_kind
from scenarios.runs.rundir import HISTORY
from scenarios.runs.stored import StoredRun, load_run, read_experiment
from scenarios.runs.sweep_plan import SWEEP
from scenarios.runs.watching import life_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A directory and what it holds; what is not known is None.

    life: running, ended, failed, killed (it has neither a process nor a result), damaged or
    foreign; why: the reason of the last two. process: who runs it. round_index: of the last record,
    in the problem of that number; num_rounds: as planned, for each problem. when: of the last
    record, or else of the experiment, in UTC.
    """

    path: str
    life: str
    why: str = ""
    process: str | None = None
    scenario: str | None = None
    strategy: str | None = None
    clients: int | None = None
    seed: int | None = None
    problem: int | None = None
    round_index: int | None = None
    num_rounds: int | None = None
    best_value: float | None = None
    queries: int | None = None
    when: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        return asdict(self)


def list_runs(directory: Path | str) -> list[Listed]:
    """Return a row for every run in and below a directory, in the order of their paths.

    Raises ConfigError for what is no directory.
    """
    root = Path(directory)
    if not root.is_dir():
        raise ConfigError(f"{root} is no directory; name one below which runs lie (--out of a run)")
    found = {path.parent for name in (EXPERIMENT, HISTORY) for path in root.rglob(name)}
    rows = [_row(path) for path in found]
    if root not in found:
        rows += [
            Listed(path=str(p), life="foreign", why=_what_else(p)) for p in _foreign(root, found)
        ]
    return sorted(rows, key=lambda row: row.path)


def _foreign(root: Path, found: set[Path]) -> Iterator[Path]:
    """Return the directories right below the root in and below which no run was found."""
    known = {above for path in found for above in (path, *path.parents)}
    return (path for path in root.iterdir() if path.is_dir() and path not in known)


def _what_else(path: Path) -> str:
    """Return what lies in a directory without a run."""
    if any(path.rglob(SWEEP)):
        return f"{path} holds a sweep whose best settings have not run yet; go on with --resume"
    told = other_kind(path)
    return f"{path} holds no run; {told}" if told else f"{path} holds no run"


def _row(path: Path) -> Listed:
    try:
        return _standing(_loaded(path))
    except (FedzoError, OSError) as error:
        return Listed(path=str(path), life="damaged", why=str(error))


def _loaded(path: Path) -> StoredRun:
    """Return a run, also one that has written no history yet."""
    if (path / EXPERIMENT).is_file() and not (path / HISTORY).exists():
        return StoredRun(path, read_experiment(path / EXPERIMENT), [])
    return load_run(path)


def _standing(run: StoredRun) -> Listed:
    made, last = run.experiment, run.records[-1] if run.records else None
    return Listed(
        path=str(run.path),
        life=life_of(run.path),
        process=holder_of(run.path / LOCK),
        scenario=made.scenario,
        strategy=made.strategy,
        clients=made.num_clients,
        seed=made.seed,
        problem=last.problem if last else None,
        round_index=last.round_index if last else None,
        num_rounds=made.num_rounds,
        best_value=run.numbers.best_value if last else None,
        queries=run.numbers.queries,
        when=_written(run.path / HISTORY if last else run.path / EXPERIMENT),
    )


def _written(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
