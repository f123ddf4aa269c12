"""The command line: `fedzo COMMAND`; alone it prints a page that teaches."""

import os
import signal
import sys
from typing import Annotated

import click
import typer

from fedzo import __version__
from scenarios.cli.lazy import LazyGroup

app = typer.Typer(
    cls=LazyGroup,
    name="fedzo",
    help="Optimize together without seeing gradients: simulate federations of clients that can only"
    " be queried (or differentiated), and count every query, float and byte.",
    epilog="Begin with: fedzo run attack --strategy fedzo --out runs/first",
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PAGE = """\
fedzo {version}: optimize together without seeing gradients, and count every query.

Five clients minimize one function by queries alone; the figure shows F against queries:
  fedzo run quadratic --strategy fedzo --out runs/first

What can be optimized, and by what method; then the settings of one of them:
  fedzo list
  fedzo list quadratic --strategy fzoos

Two methods on the same problems and seeds, in one figure:
  fedzo compare quadratic --strategies fedzo,fzoos --seeds 0,1,2 --out runs/second

All settings in a file, explained; change it, and run it:
  fedzo init quadratic --strategy fzoos
  fedzo run --config quadratic.toml

Your own black box, and your own method, in files that run at once:
  fedzo new objective my_box
  fedzo new strategy Drift

Attack an image classifier that only answers scores:
  fedzo attack mnist --radius 0.2 --images 5

All commands: fedzo --help. One of them: fedzo run --help."""


def _print_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"fedzo {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: click.Context,
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_print_version, is_eager=True, help="show it"),
    ] = None,
) -> None:
    """Take the options that stand before a command; without one, print a page that teaches."""
    if context.invoked_subcommand is None and not version:
        typer.echo(PAGE.format(version=__version__))


def main() -> None:
    """Run the command line; whoever ends it, or leaves its terminal, interrupts it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one of them
            signal.signal(number, signal.default_int_handler)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        from scenarios.cli.options import FULL

        if error.errno not in FULL:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would write the rest as it ends
        print(f"error: what is printed cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)
