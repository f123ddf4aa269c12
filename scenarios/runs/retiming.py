"""Many finished runs on several fleets: means over seeds, and when a level was reached."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from scenarios.runs.gathered import gather
from scenarios.runs.milestones import reached, targets_of
from scenarios.runs.retime import retime
from scenarios.runs.run_result import RunResult


@dataclass(frozen=True, slots=True)
class RetimedRow:
    """Runs of one label on one fleet: means over seeds, in seconds; reached: the median, if any.

    seeds: how many runs; a level counts as reached where more than half of them have.
    """

    label: str
    fleet: str
    seeds: int
    seconds: float
    down: float
    compute: float
    up: float
    waiting: float
    reached: float | None = None


@dataclass(frozen=True, slots=True)
class Retiming:
    """A row for every label and fleet, and the runs by `label on fleet`."""

    rows: Sequence[RetimedRow]
    results: Mapping[str, Sequence[RunResult]]

    def to_json(self) -> dict[str, Any]:
        return {"rows": [asdict(row) for row in self.rows]}


def retime_all(
    directories: Sequence[Path],
    fleets: Sequence[str],
    settings: Mapping[str, Scalar],
    levels: Mapping[str, Sequence[float]],
) -> Retiming:
    """Price all runs in and below directories anew on every fleet; raises as `retime`."""
    twice = [fleet for fleet in fleets if list(fleets).count(fleet) > 1]
    if twice:
        raise ConfigError(f"--fleet names {twice[0]} twice; name every fleet once")
    if sum(map(len, levels.values())) > 1:
        raise ConfigError("--reach takes one level of one metric here, such as value=0.5")
    return retimed(gather(list(directories)), fleets, settings, levels)


def retimed(
    runs: Mapping[str, Sequence[RunResult]],
    fleets: Sequence[str],
    settings: Mapping[str, Scalar],
    levels: Mapping[str, Sequence[float]],
) -> Retiming:
    """Price runs by label anew on every fleet; raises as `retime`."""
    targets_of({label: some[:1] for label, some in runs.items()}, levels)  # known metrics alone
    rows, results = [], {}
    for label, some in runs.items():
        for fleet in fleets:
            made = [retime(one, fleet, **settings) for one in some]
            results[f"{label} on {fleet}"] = made
            rows.append(_row(label, fleet, made, levels))
    return Retiming(rows, results)


def _row(
    label: str, fleet: str, runs: Sequence[RunResult], levels: Mapping[str, Sequence[float]]
) -> RetimedRow:
    times = [run.virtual for run in runs if run.virtual is not None]
    named = {
        name: mean(getattr(time, name) for time in times)
        for name in ("seconds", "down", "compute", "up", "waiting")
    }
    at = math.inf
    for metric, (level,) in levels.items():
        found = [reached(run.records, metric, level) for run in runs]
        at = median(math.inf if one is None else one.axis("virtual_seconds") for one in found)
    return RetimedRow(label, fleet, len(runs), **named, reached=None if math.isinf(at) else at)
