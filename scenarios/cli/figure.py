"""The options of figures: scales, limits, size, style."""

from dataclasses import dataclass, fields
from typing import Annotated

import typer

from fedzo.records.figure_look import FigureLook, parse_limits, parse_size


@dataclass(frozen=True, slots=True)
class FigureOptions:
    """How a figure is to look."""

    logx: Annotated[bool, typer.Option("--logx", help="a logarithmic axis x")] = False
    logy: Annotated[
        bool | None,
        typer.Option(
            "--logy/--no-logy",
            help="a logarithmic axis y, or none (default: where all is above 0)",
        ),
    ] = None
    xlim: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="ends of x; `100,` leaves the high one open"),
    ] = None
    ylim: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="ends of y; `0.01,` leaves the high one open"),
    ] = None
    size: Annotated[
        str | None, typer.Option(metavar="W,H", help="width and height in inches (default: 7,4.5)")
    ] = None
    style: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.mplstyle",
            help="a style of matplotlib, such as grayscale, or a file of settings; its colors are"
            " taken, dashes and markers stay",
        ),
    ] = None

    def look(self) -> FigureLook:
        """Return what is wanted; raises ConfigError for what is none."""
        return FigureLook(
            logx=self.logx or None,
            logy=self.logy,
            xlim=None if self.xlim is None else parse_limits(self.xlim, "--xlim"),
            ylim=None if self.ylim is None else parse_limits(self.ylim, "--ylim"),
            size=None if self.size is None else parse_size(self.size),
            style=self.style,
        )

    @property
    def given(self) -> list[str]:
        """The names of the options that were typed."""
        usual = FigureOptions()
        return [
            f"--{each.name}"
            for each in fields(self)
            if getattr(self, each.name) != getattr(usual, each.name)
        ]
