"""The command `fedzo check`."""

import math
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

    finish(guard(work), json_output)


def _print(console: Console, objective: str, client: int, found: "Checked") -> None:
    table = Table(
        title=title(f"{objective}, client {client}"), show_header=False, title_justify="left"
    )
    for name, told in _rows(found).items():
        table.add_row(name, shown(told))
    console.print(table)
    for name, told in _verdicts(found).items():
        say(console, f"{name}: {told}")
    tries = f" and {found.gradients} gradient" if found.gradients else ""
    say(console, f"cost: {found.queries} queries{tries}")


def _rows(found: "Checked") -> dict[str, str]:
    more = ", ..." if found.dim > len(found.start) else ""
    free = found.lower == -math.inf and found.upper == math.inf
    return {
        "objective": found.kind,
        "dim": f"{found.dim:,}",
        "box": "none" if free else f"within [{found.lower:g}, {found.upper:g}]",
        "start": f"{', '.join(f'{x:g}' for x in found.start)}{more}",
        "value there": f"{found.value:.10g}",
        "seconds a query": f"{found.seconds:.3g} (the first: {found.first_seconds:.3g})",
        "gradients": "yes" if found.has_gradient else "no: a black box",
        "examples": "none" if found.examples is None else f"{found.examples:,}",
        "batched": "yes" if found.batched else "no: its code gets one point at a time",
    }


def _verdicts(found: "Checked") -> dict[str, str]:
    agree = "none: two answers at the start are equal"
    told = {"noise": f"about {found.noise:.3g} (standard deviation)" if found.noise else agree}
    seen = f"a step of {found.mu:g} changes F by {found.difference:.3g}"
    floor = "the noise" if found.noise == found.floor else "rounding"
    times = f"{found.difference / found.floor:.3g} times {floor}"
    if found.resolved:
        return {**told, "mu": f"{seen}, {times}: seen"}
    remedy = f"raise it: --set client.mu={found.better_mu:g}, of methods that ask around x (fedzo)"
    return {**told, "mu": f"{seen}, {times}: not seen; {remedy}"}
