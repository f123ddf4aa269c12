"""The command `fedzo plot`."""

from pathlib import Path
from typing import Annotated

import typer

from fedzo.errors import ConfigError
from fedzo.records.history import AXES
from fedzo.records.plots import check_figure, plot_runs
from fedzo.records.visible import visible
from scenarios.cli.options import guard
from scenarios.runs.stored import by_label, load_runs


def plot_command(
    directories: Annotated[list[Path], typer.Argument(help="directories of runs, or above them")],
    x: Annotated[str, typer.Option(help=f"one of {', '.join(AXES)}")] = "queries",
    y: Annotated[
        str | None, typer.Option(help="`value` or a metric (default: gap or value)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="file such as x.png, .pdf or .svg (default: plot-X.png beside the first)"
        ),
    ] = None,
) -> None:
    """Draw the histories of runs; runs whose directories differ in seed-N alone become one line."""

    def work() -> Path:
        if out is not None:
            check_figure(out)
        found = by_label(load_runs(*directories))
        runs = {label: [run.records for run in several] for label, several in found.items()}
        path = out or directories[0] / f"plot-{x}.png"
        try:
            plot_runs(path, runs, axis=x, quantity=y)
        except OSError as error:
            raise ConfigError(f"--out {path} cannot be written: {error.strerror}") from error
        return path

    typer.echo(f"figure: {visible(str(guard(work)))}")
