"""Histories as figures: any quantity against queries, rounds, examples, floats, bytes or
seconds.

A run over several problems is drawn as their mean, each problem keeping its last value after its
end; several seeds of one method as their mean with a band of one standard error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from fedzo.errors import ConfigError
from fedzo.records.figure_text import figure_text
from fedzo.records.history import AXES, RoundRecord
from fedzo.records.storage import replacing

Floats = NDArray[np.float64]
LABELS = {
    "queries": "queries, all clients together",
    "rounds": "rounds",
    "examples": "examples evaluated or differentiated, all clients together",
    "floats": "floats sent, up and down, all clients",
    "bytes": "bytes sent, up and down, all clients",
    "seconds": "wall time in seconds",
    "gap": "F(x) - F*",
    "value": "objective F(x)",
}

MOST_LABELS = 20
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


def quantity_of(records: Sequence[RoundRecord]) -> str:
    """Return what to draw: the gap to the optimum where it is known, else the objective."""
    return "gap" if any("gap" in record.metrics for record in records) else "value"


def run_curve(records: Sequence[RoundRecord], quantity: str, axis: str) -> Curve:
    """Return a run's curve, the mean over its problems; raises ConfigError if there is none."""
    if axis not in AXES:
        raise ConfigError(f"x={axis!r} is unknown; allowed: {', '.join(AXES)}")
    by_problem: dict[int, list[tuple[float, float]]] = {}
    for record in records:
        value = record.value if quantity == "value" else record.metrics.get(quantity)
        if value is not None:
            by_problem.setdefault(record.problem, []).append((record.axis(axis), value))
    if any(math.isnan(position) for points in by_problem.values() for position, _ in points):
        raise ConfigError(f"x={axis}: a run without privacy has none; take another axis")
    if not by_problem:
        raise ConfigError(f"the history records no {quantity!r}")
    pairs = [np.asarray(points).T for points in by_problem.values()]
    return mean_curve([Curve(positions, values) for positions, values in pairs])[0]


def mean_curve(curves: Sequence[Curve]) -> tuple[Curve, Floats]:
    """Return the mean of step functions on all their positions, and its standard error."""
    grid = np.unique(np.concatenate([curve.positions for curve in curves]))
    rows = np.stack([curve.at(grid) for curve in curves])
    error = rows.std(axis=0, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else np.zeros(len(grid))
    return Curve(grid, rows.mean(axis=0)), error


def draw_runs(
    axes: Axes, runs: Mapping[str, Sequence[Sequence[RoundRecord]]], *, axis: str, quantity: str
) -> None:
    """Draw one line a label; several runs under one label are seeds of one method."""
    lowest = np.inf
    lines: dict[str, Line2D] = {}
    floor = GAP_FLOOR if quantity == "gap" else -np.inf
    for label, histories in runs.items():
        curve, error = mean_curve([run_curve(h, quantity, axis) for h in histories])
        name = (
            f"{label} (mean of {len(histories)} seeds, band 1 s.e.)"
            if len(histories) > 1
            else label
        )
        values = np.maximum(curve.values, floor)
        (line,) = axes.plot(curve.positions, values, drawstyle="steps-post")
        lines[figure_text(name)] = line
        low, high = np.maximum(values - error, floor), values + error
        axes.fill_between(
            curve.positions, low, high, step="post", alpha=0.2, color=line.get_color(), lw=0
        )
        lowest = min([lowest, *values[np.isfinite(values)].tolist()])
    if 0 < lowest < np.inf:
        axes.set_yscale("log")
    axes.set_xlabel(LABELS.get(axis, axis))
    axes.set_ylabel(LABELS.get(quantity, figure_text(quantity.replace("_", " "))))
    axes.grid(alpha=0.3)
    told = list(lines)[:MOST_LABELS]
    more = f"{len(told)} of {len(runs)} runs" if len(told) < len(runs) else None
    axes.legend([lines[name] for name in told], told, fontsize="small", title=more)


def plot_runs(
    path: Path,
    runs: Mapping[str, Sequence[Sequence[RoundRecord]]],
    *,
    axis: str = "queries",
    quantity: str | None = None,
    title: str = "",
) -> None:
    """Write a figure of runs to `path`; without `quantity`, see `quantity_of`."""
    records = [record for histories in runs.values() for h in histories for record in h]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    draw_runs(figure.add_subplot(), runs, axis=axis, quantity=quantity or quantity_of(records))
    figure.suptitle(figure_text(title), fontsize="medium")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as its suffix says, without touching matplotlib's global state."""
    check_figure(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower().removeprefix(".")
    FigureCanvasAgg(figure)
    with replacing(path) as fresh:
        figure.savefig(fresh, format=kind)


def check_figure(path: Path) -> None:
    """Raise ConfigError for a suffix that is no format of a figure."""
    formats = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix.lower().removeprefix(".") not in formats:
        raise ConfigError(
            f"figure {path} has no suffix of a format; write {path.stem}.png, or one of"
            f" {', '.join(formats)}"
        )
