"""The command `fedzo table`."""

from pathlib import Path
from typing import Annotated

import typer

from fedzo.errors import ConfigError
from fedzo.records.history import AXES
from fedzo.records.storage import write_whole
from fedzo.records.terminal import say
from fedzo.records.visible import visible
from scenarios.cli.options import guard, stderr


def table_command(
    *,
    directories: Annotated[list[Path], typer.Argument(help="directories of runs, or above them")],
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="end|AXIS=N,N,...",
            help=f"where methods are compared, queries=5000 or another of {', '.join(AXES)}; may be"
            " repeated (default: end, or nowhere with --target)",
        ),
    ] = None,
    target: Annotated[
        list[float] | None,
        typer.Option(help="a level of y: compares what it took to get there; may be repeated"),
    ] = None,
    x: Annotated[str, typer.Option(help="what --target is counted in")] = "queries",
    y: Annotated[
        str | None, typer.Option(help="`value` or a metric (default: gap or value)")
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="the best y until --at instead of the last")
    ] = False,
    baseline: Annotated[
        str | None,
        typer.Option(help="method that all are compared with (default: the best of them)"),
    ] = None,
    test: Annotated[str, typer.Option(help="wilcoxon or sign, paired over seeds")] = "wilcoxon",
    higher: Annotated[
        bool | None,
        typer.Option(
            "--higher/--lower",
            help="which y is better (default: lower for value, gap and losses, else higher)",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="text, markdown, latex, csv or json (default: as --out ends, or text)",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="file: .txt, .md, .tex, .csv or .json (default: printed)")
    ] = None,
) -> None:
    """Compare methods over seeds in a table for a paper: means, errors, paired tests.

    Runs whose directories differ in seed-N alone are seeds of one method. Every method is compared
    with the best, or with --baseline, on the seeds that both have; p-values are corrected for the
    number of methods, and what they assume stands below. Examples:

    fedzo table runs/both --at queries=5000 --format latex --out table.tex

    fedzo table runs/both --target 0.1 --baseline fedzo
    """

    def work() -> str:
        from fedzo.records.methods_table import FORMATS
        from scenarios.runs.table import table  # it needs torch, the help does not

        kind = _format(form, out)
        found = table(
            directories,
            y=y,
            at=at,
            target=target,
            x=x,
            best=best,
            baseline=baseline,
            test=test,
            higher=higher,
        )
        if kind == "csv":  # which has no room for them
            for note in found.notes:
                say(stderr, note)
        told = FORMATS[kind](found)
        if out is None:
            return told
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_whole(out, told + "\n")
        except OSError as error:
            raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from error
        return f"table: {visible(str(out))}"

    typer.echo(guard(work))


def _format(name: str | None, out: Path | None) -> str:
    """Return the format of a table; raises ConfigError for an unknown one, or its suffix."""
    from fedzo.config import unknown_key
    from fedzo.records.methods_table import FORMATS, SUFFIXES

    if name is not None and name not in FORMATS:
        raise unknown_key(name, FORMATS, what="--format")
    if name is not None or out is None:
        return name or "text"
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"--out {out} has no suffix of a format; write {out.stem}.tex, or one of"
            f" {', '.join(SUFFIXES)}, or add --format"
        )
    return SUFFIXES[out.suffix.lower()]
