"""How a run stands after a record: what a terminal, a log and a watcher show of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from fedzo.records.history import RoundRecord

_SHOWN = 3
"""Metrics that are shown, at most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a problem of a run ends: after so many rounds, or queries of all clients together."""

    num_rounds: int
    query_budget: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A record, the lowest whole F of its problem so far, the last F, and the run's limits.

    metrics: those of the last x that was judged.
    """

    record: RoundRecord
    limits: Limits
    value: float | None = None
    best: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def after(self, record: RoundRecord) -> "Status":
        """Return how the run stands after the next record; a new problem begins anew."""
        same = record.problem == self.record.problem
        before = (self.value, self.best) if same else (None, None)
        value = before[0] if record.value is None else record.value
        whole = record.whole_value
        known = [v for v in (before[1], whole) if v is not None and not math.isnan(v)]
        metrics = record.metrics or (self.metrics if same else {})
        return Status(record, self.limits, value, min(known, default=None), metrics)

    @property
    def budget_left(self) -> int | None:
        """Queries left for this problem; None without a budget."""
        budget = self.limits.query_budget
        return None if budget is None else max(0, budget - self.record.queries)

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end of this problem at its pace so far, by rounds or by the budget."""
        record, left = self.record, self.budget_left
        if not record.round_index or not record.wall_s:
            return None
        share = (self.limits.num_rounds - record.round_index) / record.round_index
        if left is not None and record.queries:
            share = min(share, left / record.queries)
        return record.wall_s * max(0.0, share)

    def parts(self) -> Mapping[str, str]:
        """Return what is known, by name; what a run does not have is left out."""
        record = self.record
        told = {
            "problem": f"{record.problem}" if record.problem else "",
            "round": f"{record.round_index}/{self.limits.num_rounds}",
            "F": _number(self.value),
            "best": _number(self.best),
            **{name: f"{value:.4g}" for name, value in islice(self.metrics.items(), _SHOWN)},
            "queries": f"{record.queries:,}",
            "left": "" if self.budget_left is None else f"{self.budget_left:,}",
            "bytes": _size(record.bytes_up + record.bytes_down),
            "virtual": "" if record.virtual is None else _time(record.virtual.seconds),
            "epsilon": _number(record.epsilon_run),
            "answered": f"{record.clients_answered}/{record.clients_asked}",
            "ETA": _time(self.seconds_left or None),
        }
        return {name: text for name, text in told.items() if text}

    def line(self) -> str:
        """Return all that as one plain line."""
        return "  ".join(f"{name} {text}" for name, text in self.parts().items())


def begun(limits: Limits) -> Status:
    """Return how a run stands before its first record."""
    return Status(RoundRecord(round_index=0), limits)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _size(count: int) -> str:
    """Return a number of bytes in a unit that leaves few digits."""
    if count < 1000:
        return f"{count} B"
    power = min(4, int(math.log10(count) // 3))
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
