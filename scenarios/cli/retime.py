"""The command `fedzo retime`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedzo.errors import ConfigError
from fedzo.records.terminal import say_place, shown
from fedzo.setting_texts import parse_settings
from scenarios.cli.options import JsonOption, finish, guard, prepare


def retime_command(
    directories: Annotated[
        list[Path], typer.Argument(help="directories of runs, or above them, such as of compare")
    ],
    fleet: Annotated[
        str, typer.Option(help="mobile, fedscale, 5g, silo, nb-iot, or several with commas between")
    ] = "mobile",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="of the fleet, such as fleet.query_s=0.05; may be repeated",
        ),
    ] = None,
    reach: Annotated[
        str | None,
        typer.Option(
            help="METRIC=V: when five evaluations in a row had such a mean (value=0.5, gap=0.1)"
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="a file for the curves over virtual seconds")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Say how long finished runs would have taken on other devices, without running again.

    Exact for runs that nobody was late for: the same values, at the times at which they would have
    been there.

    Example: fedzo retime runs/first --fleet mobile,silo --set fleet.query_s=0.05
    """
    prepare(1)
    from scenarios.runs.config_file import parse_positions
    from scenarios.runs.figure import plot
    from scenarios.runs.retiming import Retiming, retime_all

    def work() -> dict[str, Any]:
        levels = parse_positions([reach], option="reach") if reach else {}
        typed = parse_settings(settings or [])
        other = [key for key in typed if not key.startswith("fleet.")]
        if other:
            raise ConfigError(f"--set {other[0]}: a finished run is re-timed by settings of fleet.")
        own = {key.removeprefix("fleet."): value for key, value in typed.items()}
        found = retime_all(directories, fleet.split(","), own, levels)
        if figure:
            plot(found.results, x="virtual_seconds", out=figure)
        if not json_output:
            _print(Console(), found)
            if figure:
                say_place(Console(), "figure", figure)
        return found.to_json()

    def _print(console: Console, found: "Retiming") -> None:
        heads = ("run", "fleet", "seconds", "down", "compute", "up", "waiting")
        table = Table(*heads, *([f"until {shown(reach)}"] if reach else []))
        for row in found.rows:
            parts = [row.down, row.compute, row.up, row.waiting]
            shares = [f"{part / row.seconds:.0%}" if row.seconds else "-" for part in parts]
            until = ["never" if row.reached is None else f"{row.reached:,.1f}"] if reach else []
            table.add_row(shown(row.label), row.fleet, f"{row.seconds:,.1f}", *shares, *until)
        console.print(table)

    finish(guard(work), json_output)
