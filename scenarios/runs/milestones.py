"""How far runs got by a position, and where they reached a level for good.

milestone: the lowest F up to a position on an axis (queries, rounds, ...).
target: a level of a metric is reached where the mean of its last WINDOW evaluations first is at or
beyond it, which a lucky single evaluation is not; rounds, examples, floats and queries are those of
the last of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fedzo.errors import ConfigError
from fedzo.records.history import RoundRecord
from scenarios.runs.measures import more_is_better
from scenarios.runs.simulate import RunResult

WINDOW = 5
COSTS = ("rounds", "examples", "queries", "floats", "virtual_seconds")


@dataclass(frozen=True, slots=True)
class Milestone:
    """The lowest F of each run of each strategy up to a position on an axis, starts included."""

    axis: str
    limit: float
    values: Mapping[str, Sequence[float]]

    def to_json(self) -> dict[str, Any]:
        found_values = {name: [known(v) for v in found] for name, found in self.values.items()}
        medians = {name: _median(found) for name, found in self.values.items()}
        return {"axis": self.axis, "limit": self.limit, "median": medians, "values": found_values}


def _median(values: Sequence[float]) -> float | None:
    """Return the median, in which a run without a value is worse than all others; None for such."""
    found = median(math.inf if math.isnan(value) else value for value in values)
    return found if math.isfinite(found) else None


@dataclass(frozen=True, slots=True)
class Target:
    """What each run of each strategy had spent where it reached a level; None where it did not."""

    metric: str
    level: float
    spent: Mapping[str, Sequence[Mapping[str, float] | None]]

    def median(self, strategy: str) -> dict[str, float] | None:
        """Return the median cost over runs; None unless more than half have reached the level."""
        found = self.spent[strategy]
        costs = {
            name: median(math.inf if spent is None else spent[name] for spent in found)
            for name in COSTS
            if all(spent is None or name in spent for spent in found)
        }
        return None if math.isinf(costs["rounds"]) else costs

    def to_json(self) -> dict[str, Any]:
        medians = {name: self.median(name) for name in self.spent}
        return {
            "metric": self.metric,
            "level": self.level,
            "median": medians,
            "runs": {name: list(found) for name, found in self.spent.items()},
        }


def milestones_of(
    results: Mapping[str, Sequence[RunResult]], at: Mapping[str, Sequence[float]]
) -> list[Milestone]:
    """Return a milestone for every axis and position."""
    return [
        Milestone(
            axis,
            limit,
            {
                name: [value_at(run, "value", axis, limit, best=True) for run in runs]
                for name, runs in results.items()
            },
        )
        for axis, limits in at.items()
        for limit in limits
    ]


def targets_of(
    results: Mapping[str, Sequence[RunResult]], reach: Mapping[str, Sequence[float]]
) -> list[Target]:
    """Return a target for every metric and level; `value` is F.

    Raises ConfigError for a metric that a run does not have, or one with several problems.
    """
    return [
        Target(
            metric,
            level,
            {name: [_spent(run, metric, level) for run in runs] for name, runs in results.items()},
        )
        for metric, levels in reach.items()
        for level in levels
    ]


def reached(
    records: Sequence[RoundRecord],
    metric: str,
    level: float,
    *,
    window: int = WINDOW,
    higher: bool | None = None,
) -> RoundRecord | None:
    """Return the record after which the mean of the last evaluations is at or beyond a level.

    higher: whether more is better; without it, what `more_is_better` says.
    """
    sign = 1 if more_is_better(metric, higher) else -1
    known_at = [(record, _of(record, metric)) for record in records]
    found = [(record, value) for record, value in known_at if value is not None]
    for last in range(window, len(found) + 1):
        recent = [value for _, value in found[last - window : last]]
        if sign * sum(recent) / window >= sign * level:
            return found[last - 1][0]
    return None


def require_recorded(
    reach: Mapping[str, Sequence[float]], runs: Sequence[RunResult], out: Path | None
) -> None:
    """Raise ConfigError for a misspelled metric after the first run, which is not in vain."""
    try:
        targets_of({"": runs[:1]}, reach)
    except ConfigError as error:
        kept = "" if out is None else f"; {out} keeps the run, so correct it and add --resume"
        raise ConfigError(f"{error}{kept}") from error


def known(value: float) -> float | None:
    """Return the value, None for NaN."""
    return None if math.isnan(value) else value


def _of(record: RoundRecord, metric: str) -> float | None:
    return record.whole_value if metric == "value" else record.metrics.get(metric)


def _spent(run: RunResult, metric: str, level: float) -> dict[str, float] | None:
    if len(run.last_records) > 1:
        raise ConfigError("--reach is for scenarios with one problem; use --at")
    if all(_of(record, metric) is None for record in run.records):
        names = sorted({name for record in run.records for name in record.metrics})
        raise ConfigError(
            f"--reach {metric} is not recorded; allowed: {', '.join(['value', *names])}"
        )
    record = reached(run.records, metric, level)
    if record is None:
        return None
    costs = {name: record.axis(name) for name in COSTS}
    return {name: cost for name, cost in costs.items() if not math.isnan(cost)}


def value_at(
    run: RunResult,
    metric: str,
    axis: str,
    limit: float,
    *,
    best: bool = False,
    higher: bool | None = None,
) -> float:
    """Return a metric within a limit on an axis, averaged over problems; `value` is F.

    It is the last that was recorded until there, or the best, of an F that as many judges as must
    have answered. NaN where a problem has none, or where nobody could judge x there.
    """
    if metric == "value" and not best and not run.knows_value(axis, limit):
        return math.nan
    pick = max if more_is_better(metric, higher) else min
    by_problem: dict[int, float] = {}
    for record in run.records:
        value = _of(record, metric) if best else _known(record, metric)
        if value is not None and record.axis(axis) <= limit:
            before = by_problem.get(record.problem, value)
            by_problem[record.problem] = pick(before, value) if best else value
    problems = len(run.last_records)
    return sum(by_problem.values()) / problems if len(by_problem) == problems else math.nan


def _known(record: RoundRecord, metric: str) -> float | None:
    """Return what a record says of a metric, F by however few judges."""
    return record.value if metric == "value" else record.metrics.get(metric)
