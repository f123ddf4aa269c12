"""Curves of runs as a figure, drawn into any Axes, and figures as files.

Lines differ by color, dashes and markers (line_looks); nothing global of matplotlib is changed.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedzo.errors import ConfigError
from fedzo.records.curves import (
    GAP_FLOOR,
    LABELS,
    Curve,
    mean_curve,
    quantity_of,
    run_curve,
)
from fedzo.records.figure_look import USUAL_SIZE, FigureLook
from fedzo.records.figure_style import styled
from fedzo.records.figure_text import figure_text
from fedzo.records.history import RoundRecord
from fedzo.records.line_looks import MARKER_EVERY, line_look
from fedzo.records.opaque import FORMATS as OPAQUE_FORMATS
from fedzo.records.opaque import make_opaque
from fedzo.records.spread import Floats
from fedzo.records.storage import replacing

MOST_LABELS = 40
INSIDE, ROWS = 8, 20
"""Names of a legend that find room in the axes, and those of one column."""


def draw_runs(
    axes: Axes,
    runs: Mapping[str, Sequence[Sequence[RoundRecord]]],
    *,
    axis: str,
    quantity: str,
    look: FigureLook | None = None,
    said: Mapping[str, Any] | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Draw one line a label; several runs under one label are seeds of one method.

    said: the settings of a style (figure_style), whose cycle of colors goes over ours. notes: what
    the legend says of some labels, in parentheses. Raises ConfigError where there is nothing to
    draw, or a limit or a logarithm would hide all of it.
    """
    look, said = look or FigureLook(), said or {}
    floor = GAP_FLOOR if quantity == "gap" else -np.inf
    spreads = {
        label: mean_curve([run_curve(h, quantity, axis) for h in histories])
        for label, histories in runs.items()
    }
    clipped = {
        label: (Curve(curve.positions, np.maximum(curve.values, floor)), error)
        for label, (curve, error) in spreads.items()
    }
    logy = _require_visible([curve for curve, _ in clipped.values()], look, axis, quantity)
    lines = [
        _draw_line(axes, number, curve, error, floor, said)
        for number, (curve, error) in enumerate(clipped.values())
    ]
    _dress(axes, look, logy, LABELS.get(axis, axis), _label(quantity))
    if "axes.grid" not in said:
        axes.grid(alpha=0.3)
    seeds = {label: len(histories) for label, histories in runs.items()}
    size = "small" if "legend.fontsize" not in said else None
    _draw_legend(axes, lines, seeds, notes or {}, size)


def _draw_line(
    axes: Axes,
    number: int,
    curve: Curve,
    error: Floats,
    floor: float,
    said: Mapping[str, Any],
) -> Line2D:
    """Draw a line and its band of one standard error."""
    look, cycle = line_look(number), [*said.get("axes.prop_cycle", ())]
    properties = {
        "color": look.color,
        "linestyle": look.line_style,
        "marker": look.marker,
        "markevery": (look.first_marker, MARKER_EVERY),
        **(cycle[number % len(cycle)] if cycle else {}),
    }
    (line,) = axes.plot(curve.positions, curve.values, drawstyle="steps-post", **properties)
    low, high = np.maximum(curve.values - error, floor), curve.values + error
    axes.fill_between(
        curve.positions, low, high, step="post", alpha=0.2, color=line.get_color(), lw=0
    )
    return line


def _require_visible(curves: Sequence[Curve], look: FigureLook, axis: str, quantity: str) -> bool:
    """Return whether y is logarithmic; raises ConfigError where what is asked for hides curves."""
    positions = np.concatenate([curve.positions for curve in curves])
    values = np.concatenate([curve.values for curve in curves])
    known = values[np.isfinite(values)]
    lowest = known.min(initial=np.inf)
    logy = look.logy
    if logy is None:
        logy = bool(0 < lowest < np.inf) and ((look.ylim or (None, None))[0] or 1.0) > 0
    if look.logy and lowest <= 0:
        raise ConfigError(
            f"logy: {quantity} goes down to {lowest:.6g}, and a logarithm needs what is above 0;"
            " leave logy out"
        )
    if look.logx and positions.max() <= 0:
        raise ConfigError(f"logx: no record has {axis} above 0; leave logx out, or take another x")
    ends = {"xlim": (look.xlim, positions, axis), "ylim": (look.ylim, known, quantity)}
    for name, (limits, numbers, what) in ends.items():
        low, high = (-math.inf if limits is None or limits[0] is None else limits[0],
                     math.inf if limits is None or limits[1] is None else limits[1])  # fmt: skip
        if len(numbers) and (low > numbers.max() or high < numbers.min()):
            raise ConfigError(
                f"{name} shows nothing: {what} goes from {numbers.min():.6g} to"
                f" {numbers.max():.6g}; choose limits around that"
            )
    return logy


def _dress(axes: Axes, look: FigureLook, logy: bool, x: str, y: str) -> None:
    """Set scales, limits and labels."""
    if logy:
        axes.set_yscale("log")
    if look.logx:
        axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(*(look.xlim or (None, None)))
    axes.set_ylim(*(look.ylim or (None, None)))


def _label(quantity: str) -> str:
    return LABELS.get(quantity, figure_text(quantity.replace("_", " ")))


def _draw_legend(
    axes: Axes,
    lines: Sequence[Line2D],
    seeds: Mapping[str, int],
    notes: Mapping[str, str],
    size: str | None,
) -> None:
    """Name the lines, in the axes while there is room, else beside them."""
    counts = set(seeds.values())
    common = f"mean of {min(counts)} seeds, band 1 s.e." if counts - {1} else None
    names: list[str] = []
    for label, count in seeds.items():
        own = f"mean of {count} seeds, band 1 s.e." if count > 1 and len(counts) > 1 else ""
        remark = "; ".join(filter(None, [own, notes.get(label, "")]))
        names.append(figure_text(f"{label} ({remark})" if remark else label))
    told = names[:MOST_LABELS]
    more = f"{len(told)} of {len(seeds)} runs" if len(told) < len(seeds) else None
    beside = len(told) > INSIDE
    axes.legend(
        lines[: len(told)],
        told,
        fontsize=size,
        title="\n".join(filter(None, [more, common if len(counts) == 1 else None])) or None,
        title_fontsize=size,
        handlelength=3.6,
        ncols=math.ceil(len(told) / ROWS),
        loc="upper left" if beside else "best",
        bbox_to_anchor=(1.01, 1.0) if beside else None,
    )


def plot_runs(
    path: Path,
    runs: Mapping[str, Sequence[Sequence[RoundRecord]]],
    *,
    axis: str = "queries",
    quantity: str | None = None,
    title: str = "",
    look: FigureLook | None = None,
) -> None:
    """Write a figure of runs to `path`; without `quantity`, see `quantity_of`."""
    look = look or FigureLook()
    with styled(look.style) as said:
        figure = new_figure(look, said)
        draw_runs(
            figure.add_subplot(),
            runs,
            axis=axis,
            quantity=quantity or quantity_of(_all(runs)),
            look=look,
            said=said,
        )
        figure.suptitle(figure_text(title), fontsize="medium")
        save_figure(figure, path)


def new_figure(look: FigureLook, said: Mapping[str, Any]) -> Figure:
    """Return a figure of the size that is asked for, by a style too."""
    size = look.size or (None if "figure.figsize" in said else USUAL_SIZE)
    return Figure(figsize=size, layout="constrained")


def _all(runs: Mapping[str, Sequence[Sequence[RoundRecord]]]) -> list[RoundRecord]:
    return [record for histories in runs.values() for h in histories for record in h]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as its suffix says, without touching matplotlib's global state."""
    check_figure(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower().removeprefix(".")
    FigureCanvasAgg(figure)
    if kind in OPAQUE_FORMATS:
        make_opaque(figure)
    with replacing(path) as fresh:
        figure.savefig(fresh, format=kind)


def check_figure(path: Path) -> None:
    """Raise ConfigError for a suffix that is no format of a figure."""
    formats = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix.lower().removeprefix(".") not in formats:
        raise ConfigError(
            f"figure {path} has no suffix of a format; write {path.stem}.pdf or"
            f" {path.stem}.png, or one of {', '.join(formats)}"
        )
