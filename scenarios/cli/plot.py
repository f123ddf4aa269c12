"""The command `fedzo plot`."""

from pathlib import Path
from typing import Annotated

import typer

from fedzo.errors import ConfigError
from fedzo.records.history import AXES
from fedzo.records.visible import visible
from scenarios.cli.figure import FigureOptions
from scenarios.cli.options import guard


def plot_command(
    *,
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
    how: FigureOptions,
) -> None:
    """Draw the histories of runs; runs whose directories differ in seed-N alone become one line.

    Lines differ by color, dashes and markers, so they can be told apart in grey print too. For a
    column of a paper:

    fedzo plot runs/both --logx --ylim 0.01, --size 3.5,2.5 --out figure.pdf
    """

    def work() -> Path:
        from scenarios.runs.figure import plot  # it needs matplotlib, the help does not

        look = how.look()
        path = out or directories[0] / f"plot-{x}.png"
        try:
            plot(
                directories,
                x=x,
                y=y,
                logx=look.logx,
                logy=look.logy,
                xlim=look.xlim,
                ylim=look.ylim,
                size=look.size,
                style=look.style,
                out=path,
            )
        except OSError as error:
            raise ConfigError(f"--out {path} cannot be written: {error.strerror}") from error
        return path

    typer.echo(f"figure: {visible(str(guard(work)))}")
