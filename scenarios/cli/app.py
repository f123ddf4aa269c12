"""The command line: `fedzo list | run | compare | plot | deploy | audit | attack | defend |
report | watch`."""

from typing import Annotated

import typer

from fedzo import __version__
from scenarios.cli.lazy import LazyGroup

app = typer.Typer(
    cls=LazyGroup,
    name="fedzo",
    help="Optimize together without seeing gradients: simulate federations of clients that can only"
    " be queried (or differentiated), and count every query, float and byte.",
    epilog="Begin with: fedzo run attack --strategy fedzo --out runs/first",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"fedzo {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_print_version, is_eager=True, help="show it"),
    ] = None,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line."""
    app()
