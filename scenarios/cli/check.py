"""The command `fedzo check`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedzo.records.terminal import say, shown, title
from scenarios.cli.options import JsonOption, finish, guard, prepare

if TYPE_CHECKING:
    from scenarios.runs.check import Checked


def check_command(
    objective: Annotated[
        str, typer.Argument(help="file.py:function or package.module:function, as of `fedzo run`")
    ],
    client: Annotated[int, typer.Option(help="whose objective is asked")] = 0,
    mu: Annotated[
        float | None,
        typer.Option(help="client.mu of the run to come", show_default="what a run takes"),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Ask your objective a few times before a run: what it is, its noise, and whether mu is seen.

    Example: fedzo check my_box.py:my_box --mu 0.001
    """
    prepare(1)
    from scenarios.runs.check import USUAL_MU, check  # it needs torch, the help does not

    def work() -> dict[str, Any]:
        found = check(objective, client=client, mu=USUAL_MU if mu is None else mu)
        if not json_output:
            _print(Console(), objective, client, found)
        return found.to_json()

    finish(guard(work, json_output=json_output), json_output)


def _print(console: Console, objective: str, client: int, found: "Checked") -> None:
    table = Table(
        title=title(f"{objective}, client {client}"), show_header=False, title_justify="left"
    )
    for name, told in found.rows():
        table.add_row(name, shown(told))
    console.print(table)
    for name, told in found.verdicts().items():
        say(console, f"{name}: {told}")
    tries = f" and {found.gradients} gradient" if found.gradients else ""
    say(console, f"cost: {found.queries} queries{tries}")
