"""The figure of runs, from Python: curves into an Axes of the user's, or a figure of its own."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from fedzo.errors import ConfigError, FedzoWarning
from fedzo.records.curves import quantity_of
from fedzo.records.figure_look import FigureLook, Limits
from fedzo.records.figure_style import styled
from fedzo.records.figure_text import figure_text
from fedzo.records.plots import check_figure, draw_runs, new_figure, save_figure
from scenarios.runs.gathered import AnyRuns, gather, require_one_scenario, with_records
from scenarios.runs.run_result import RunResult
from scenarios.runs.table_remarks import of_mixed, unfinished


def plot(
    runs: AnyRuns,
    *,
    x: str = "queries",
    y: str | None = None,
    ax: Axes | None = None,
    logx: bool | None = None,
    logy: bool | None = None,
    xlim: Limits | None = None,
    ylim: Limits | None = None,
    size: tuple[float, float] | None = None,
    style: str | Path | None = None,
    title: str = "",
    out: str | Path | None = None,
) -> Axes:
    """Draw runs, a line a method with a band of one standard error, and return the Axes.

    runs: directories, stored runs, results, lists of these, or a mapping from labels to them. x:
    queries, rounds, examples, floats, bytes, seconds or epsilon. y: value or a metric; without one,
    the gap to the optimum where it is known, else the value. ax: your Axes, such as a panel of a
    paper; without one, a figure of its own, which axes.figure is. logy: without a wish, logarithmic
    where all values are above 0. xlim, ylim: (low, high), one of which may be None. size: width and
    height in inches. style: a style of matplotlib or the path of a file of one. out: the file to
    write, its format by its suffix. Nothing global of matplotlib is changed. The legend says how
    many runs of a label have not finished: the mean goes on with the last value of each.

    >>> import fedzo
    >>> axes = fedzo.plot("runs/both", x="queries", logx=True, ylim=(None, 4.0))
    >>> axes.get_xlabel(), axes.get_xscale(), len(axes.lines)
    ('queries, all clients together', 'log', 2)

    Raises ConfigError for what cannot be drawn, and for an option that would do nothing.
    """
    look = FigureLook(logx=logx, logy=logy, xlim=xlim, ylim=ylim, size=size, style=style)
    if ax is not None:
        _require_only_ours(ax, {"size": size, "style": style, "out": out})
    if out is not None:
        check_figure(Path(out))
    found = with_records(gather(runs))
    require_one_scenario(found)
    for remark in of_mixed(found):
        warnings.warn(remark, FedzoWarning, stacklevel=2)
    histories = {label: [one.records for one in some] for label, some in found.items()}
    records = [record for some in histories.values() for each in some for record in each]
    quantity = y or quantity_of(records)
    notes = _notes(found)
    if ax is not None:
        draw_runs(ax, histories, axis=x, quantity=quantity, look=look, notes=notes)
        ax.set_title(figure_text(title) if title else ax.get_title())
        return ax
    with styled(look.style) as said:
        figure = new_figure(look, said)
        axes = figure.add_subplot()
        draw_runs(axes, histories, axis=x, quantity=quantity, look=look, said=said, notes=notes)
        figure.suptitle(figure_text(title), fontsize="medium")
        if out is not None:
            save_figure(figure, Path(out))
    return axes


def _notes(runs: Mapping[str, Sequence[RunResult]]) -> dict[str, str]:
    """Return what is to be said of labels: runs not at their end, F of too few clients."""
    notes = {}
    for label, some in runs.items():
        begun = len(unfinished(some))
        partial = any(record.partial for run in some for record in run.records)
        told = [
            f"{f'{begun} of {len(some)} ' * (len(some) > 1)}not finished" if begun else "",
            "F in part of too few clients" if partial else "",
        ]
        notes[label] = "; ".join(filter(None, told))
    return notes


def _require_only_ours(ax: object, given: dict[str, object]) -> None:
    """Raise ConfigError for what has no effect on an Axes of the user's."""
    if not isinstance(ax, Axes):
        raise ConfigError(
            f"ax={type(ax).__name__} is no Axes of matplotlib; take one of figure.subplots()"
        )
    for name, value in given.items():
        if value is not None:
            raise ConfigError(
                f"{name}={value} has no effect on an Axes of yours, whose figure is made and saved"
                " by you; leave it out, or leave ax out"
            )
