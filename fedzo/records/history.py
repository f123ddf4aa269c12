"""The record of a run: one frozen line a round, as JSON Lines on disk.

Counts are cumulative within one problem (an attack on several images has one problem an image).
Floats are the elements of tensors sent; bytes add the sizes of their types and 8 for each scalar of
configuration or count, without the envelope of a transport.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from pydantic import TypeAdapter, ValidationError

from fedzo.errors import CheckpointError
from fedzo.records.ledger import LedgerEntry
from fedzo.records.sealed_line import is_sealed, seal, unseal
from fedzo.records.storage import replacing, storing
from fedzo.records.virtual_time import VirtualTime

AXES = (
    "queries", "rounds", "examples", "floats", "bytes", "seconds", "virtual_seconds", "epsilon",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """What is known after a round; round_index 0 is the state before the first.

    value: the global objective F, None where it was not evaluated; judges: clients whose values
    it is the mean of, 0 where F is known without asking; partial: whether those are fewer
    than must answer (strategy.min_judges), so that value compares with no other. metrics: the
    scenario's. nodes: client -> its own model's value and metrics, where there is no common x;
    value and metrics are then means.
    examples: losses of one example evaluated or differentiated at one point, so a query of a client
    with 200 examples counts 200.
    clients: those asked this round; client_queries: queries each of them answered, this round.
    failures: client -> reason. late, duplicates: answers of this round that came after their
    exchange, or again; neither was used. epsilon: privacy spent on this problem, None when not
    private; epsilon_run: by the run so far, problems before this one included; noise_std: standard
    deviation of the noise in what was released last; shortened: the share of vectors that were
    clipped then, where that is told. wall_s: seconds; virtual: those that a fleet of devices would
    have taken, None where none was given. jobs: what was asked and done this round, exchange by
    exchange, from which `fedzo retime` prices the run anew.
    """

    problem: int = 0
    round_index: int
    value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    nodes: dict[int, dict[str, float]] = field(default_factory=dict)
    judges: int = 0
    partial: bool = False
    queries: int = 0
    gradients: int = 0
    examples: int = 0
    floats_up: int = 0
    floats_down: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    wall_s: float = 0.0
    epsilon: float | None = None
    epsilon_run: float | None = None
    noise_std: float | None = None
    shortened: float | None = None
    clients: tuple[int, ...] = ()
    client_queries: tuple[int, ...] = ()
    failures: dict[int, str] = field(default_factory=dict)
    non_finite: int = 0
    late: int = 0
    duplicates: int = 0
    virtual: VirtualTime | None = None
    jobs: tuple[LedgerEntry, ...] = ()

    @property
    def clients_asked(self) -> int:
        return len(self.clients)

    @property
    def clients_answered(self) -> int:
        return len(self.clients) - len(self.failures)

    @property
    def whole_value(self) -> float | None:
        """F where as many judges as must have answered; what is best is found among these."""
        return None if self.partial else self.value

    def axis(self, name: str) -> float:
        """Return the position of this record on a plot axis, one of AXES."""
        return {
            "queries": float(self.queries),
            "rounds": float(self.round_index),
            "examples": float(self.examples),
            "floats": float(self.floats_up + self.floats_down),
            "bytes": float(self.bytes_up + self.bytes_down),
            "seconds": self.wall_s,
            "virtual_seconds": math.nan if self.virtual is None else self.virtual.seconds,
            "epsilon": math.nan if self.epsilon is None else self.epsilon,
        }[name]

    def line(self) -> str:
        """Return what a log says of the round, failures and their reasons included."""
        parts = [f"round {self.round_index}"]
        error = self.metrics.get("standard_error")
        told = "" if error is None else f" ± {error:.2g}"
        partial = " (partial)" * self.partial
        parts += [] if self.value is None else [f"F = {self.value:.6g}{told}{partial}"]
        parts += [f"{self.queries} queries", f"{self.wall_s:.1f} s"]
        parts += [] if self.epsilon_run is None else [f"epsilon = {self.epsilon_run:.4g}"]
        return "  ".join([*parts, *(f"client {c}: {why}" for c, why in self.failures.items())])

    def to_json(self) -> str:
        """Return one line of JSON; floats round-trip exactly, non-finite ones become strings."""
        plain = asdict(self)
        if self.virtual is None:
            del plain["virtual"]
        plain["jobs"] = [entry.to_json() for entry in self.jobs]
        if not self.jobs:
            del plain["jobs"]
        return json.dumps(_plain(plain), allow_nan=False)

    @staticmethod
    def from_json(line: str) -> "RoundRecord":
        """Return the record in a line, with a checksum or without; ValueError if it is none."""
        try:
            raw = json.loads(unseal(line))
            unknown = raw.keys() - {entry.name for entry in fields(RoundRecord)}
            if unknown:
                raise ValueError(f"{', '.join(sorted(unknown))} is no field of it")
            record: RoundRecord = _adapter().validate_python(raw)
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        if any(isinstance(n, int) and abs(n) >= _LARGEST for n in astuple(record)):
            raise ValueError("it counts beyond 2^63")
        return record


_LARGEST = 1 << 63


@lru_cache(maxsize=1)
def _adapter() -> Any:
    return TypeAdapter(RoundRecord)


def write_history(path: Path, records: Iterable[RoundRecord]) -> None:
    """Replace the history at `path` by these records; raises StorageError where it cannot."""
    with storing(path), replacing(path) as fresh, fresh.open("w") as file:
        _write(file, records)


def append_history(path: Path, records: Iterable[RoundRecord]) -> None:
    """Add records at the end of the history at `path`; raises StorageError where it cannot."""
    with storing(path), path.open("a") as file:
        _write(file, records)


def _write(file: TextIO, records: Iterable[RoundRecord]) -> None:
    """Write records so that they are on the disk before a checkpoint speaks of them."""
    file.writelines(seal(record.to_json()) + "\n" for record in records)
    file.flush()
    os.fsync(file.fileno())


def read_history(path: Path) -> list[RoundRecord]:
    """Read a history; an unfinished last line, left by a killed run, is dropped.

    Lines have checksums, or, in files of versions before there were any, none of them has one.
    Raises CheckpointError for any other damaged line, where lines are missing, twice or in another
    order, and for a file that cannot be read.
    """
    records: list[RoundRecord] = []
    sealed, before = None, b""
    for number, line in enumerate(_lines(path), start=1):
        try:
            text = line.decode()
            records.append(RoundRecord.from_json(text))
            if sealed is not None and sealed != is_sealed(text):
                raise ValueError("some lines have a checksum and others have none")
            sealed = is_sealed(text)
            if line == before or not _follows(records[-1], records[-2] if records[1:] else None):
                raise ValueError("lines are missing before it, or it is out of place")
            before = line
        except ValueError as error:
            begin = line[:60].decode(errors="replace")
            raise CheckpointError(
                f"{path} line {number} is not a round record: {begin!r}"
                f" ({_first_line(error)}); restore the file, or run again in an empty directory"
            ) from error
    return records


def _follows(record: RoundRecord, before: RoundRecord | None) -> bool:
    """Return whether a record may come after another: one of a round that ended the run may too."""
    if before is None:
        return (record.problem, record.round_index) == (0, 0)
    if record.problem != before.problem:
        return record.problem == before.problem + 1 and record.round_index == 0
    return record.round_index - before.round_index in (0, 1)


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the finished lines of a file, each of a bounded length."""
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} is no file that can be read; restore it")
        with path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                if line.endswith(b"\n"):
                    yield line[:-1]
                elif len(line) == _LONGEST_LINE:
                    raise CheckpointError(f"{path} has a line too long for a round record")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


_LONGEST_LINE = 1 << 28


def _first_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _plain(value: object) -> object:
    """Replace non-finite floats by their names, everywhere in a JSON value."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
