"""The command `fedzo report`."""

from pathlib import Path
from typing import Annotated

import typer

from fedzo.errors import ConfigError
from fedzo.records.visible import visible
from scenarios.cli.options import guard


def report_command(
    directories: Annotated[list[Path], typer.Argument(help="directories of runs, or above them")],
    out: Annotated[Path, typer.Option(help="the page, such as report.html")] = Path("report.html"),
) -> None:
    """Write one page of HTML about runs that needs no network: curves, tables, settings, failures.

    Runs whose directories differ in seed-N alone are seeds of one method. Of `fedzo finetune`,
    `fedzo attack` and `fedzo compare --attacks` too. Example:

    fedzo report runs/both --out report.html
    """

    def work() -> Path:
        from scenarios.runs.report import write_report  # it needs torch, the help does not

        if out.suffix.lower() not in (".html", ".htm"):
            raise ConfigError(f"--out {out} is no page of HTML; write {out.stem}.html")
        try:
            write_report(directories, out)
        except OSError as error:
            raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from error
        return out

    typer.echo(f"report: {visible(str(guard(work)))}")
