"""Histories as curves: any quantity against queries, rounds, examples, floats, bytes or seconds.

A run over several problems is drawn as their mean, each problem keeping its last value after its
end; several seeds of one method as their mean with a band of one standard error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedzo.config import unknown_key
from fedzo.errors import ConfigError
from fedzo.records.history import AXES, RoundRecord
from fedzo.records.spread import Floats, mean_and_error

LABELS = {
    "queries": "queries, all clients together",
    "rounds": "rounds",
    "virtual_seconds": "seconds on the fleet (virtual)",
    "examples": "examples evaluated or differentiated, all clients together",
    "floats": "floats sent, up and down, all clients",
    "bytes": "bytes sent, up and down, all clients",
    "seconds": "wall time in seconds",
    "gap": "F(x) - F*",
    "value": "objective F(x)",
}

GAP_FLOOR = 1e-9
"""Smaller gaps to the optimum are drawn here: on a logarithmic axis zero has no place."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A step function: `values[k]` holds from `positions[k]` on."""

    positions: Floats
    values: Floats

    def at(self, grid: Floats) -> Floats:
        """Return the values at grid points; before the first position, the first value."""
        index = np.searchsorted(self.positions, grid, side="right") - 1
        return self.values[np.maximum(index, 0)]


_WITHOUT = {
    "epsilon": "a run without privacy has none",
    "virtual_seconds": "a run without a fleet of devices has none, but `fedzo retime` gives it one",
}


def require_records(records: Sequence[RoundRecord]) -> None:
    """Raise ConfigError where there is nothing to draw or to tell yet."""
    if not records:
        raise ConfigError("there is no record yet; `fedzo runs` says how far a run is, and why")


def quantity_of(records: Sequence[RoundRecord]) -> str:
    """Return what to draw: the gap to the optimum where it is known, else the objective."""
    return "gap" if any("gap" in record.metrics for record in records) else "value"


def recorded(records: Sequence[RoundRecord]) -> list[str]:
    """Return what a history can be drawn and told by: F where it was judged, and the metrics."""
    judged = any(record.value is not None for record in records)
    return [*(["value"] * judged), *dict.fromkeys(n for record in records for n in record.metrics)]


def run_curve(records: Sequence[RoundRecord], quantity: str, axis: str) -> Curve:
    """Return a run's curve, the mean over its problems; raises ConfigError if there is none."""
    if axis not in AXES:
        raise ConfigError(f"x={axis!r} is unknown; allowed: {', '.join(AXES)}")
    require_records(records)
    by_problem: dict[int, list[tuple[float, float]]] = {}
    for record in records:
        value = record.value if quantity == "value" else record.metrics.get(quantity)
        if value is not None:
            by_problem.setdefault(record.problem, []).append((record.axis(axis), value))
    if any(math.isnan(position) for points in by_problem.values() for position, _ in points):
        raise ConfigError(f"x={axis}: {_WITHOUT.get(axis, 'a run has none')}; take another axis")
    if not by_problem:
        raise unknown_key(quantity, recorded(records), what="quantity")
    pairs = [np.asarray(points).T for points in by_problem.values()]
    return mean_curve([Curve(positions, values) for positions, values in pairs])[0]


def mean_curve(curves: Sequence[Curve]) -> tuple[Curve, Floats]:
    """Return the mean of step functions on all their positions, and its standard error."""
    grid = np.unique(np.concatenate([curve.positions for curve in curves]))
    rows = np.stack([curve.at(grid) for curve in curves])
    mean, error = mean_and_error(rows)
    return Curve(grid, mean), error
