"""The command `fedzo runs`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from fedzo.records.terminal import say, shown
from scenarios.cli.options import JsonOption, finish, guard

if TYPE_CHECKING:
    from scenarios.runs.listing import Listed

WIDTH = 120
"""Columns of the table, at least: what is narrower breaks its lines."""


def runs_command(
    directory: Annotated[Path, typer.Argument(help="below which runs lie")] = Path("runs"),
    json_output: JsonOption = False,
) -> None:
    """List the runs below a directory: what each is, how far it is, and the best value so far.

    A directory that is damaged, or holds no run, has a line that says so. Example: fedzo runs runs
    """

    from scenarios.runs.listing import list_runs  # it needs torch, the help does not

    def work() -> dict[str, Any]:
        rows = list_runs(directory)
        if not json_output:
            _print(Console(width=max(WIDTH, Console().width)), directory, rows)
        return {"directory": str(directory), "runs": [row.to_json() for row in rows]}

    finish(guard(work), json_output)


def _print(console: Console, directory: Path, rows: Sequence["Listed"]) -> None:
    if not rows:
        say(console, f"{directory} holds no run")
        return
    heads = ("what", "clients", "seed", "rounds", "best", "queries", "when (UTC)")
    table = Table(Column("run", overflow="fold"), "state", *heads, box=None, pad_edge=False)
    for row in rows:
        table.add_row(shown(Path(row.path).relative_to(directory)), *map(shown, _cells(row)))
    console.print(table)
    for row in rows:
        if row.why:
            say(console, f"{row.life}: {row.why}")
    counts = Counter(row.life for row in rows)
    say(console, ", ".join(f"{number} {life}" for life, number in counts.items()))


def _cells(row: "Listed") -> list[str]:
    if row.scenario is None:
        return [row.life]
    what = f"{row.scenario} / {row.strategy}"
    life = f"running ({row.process})" if row.process else row.life
    rounds = f"{row.round_index or 0}/{row.num_rounds}"
    rounds += f" of problem {row.problem}" if row.problem else ""
    numbers = [rounds, _number(row.best_value, ".6g"), _number(row.queries, ",")]
    when = (row.when or "").replace("T", " ")[:16]
    return [life, what, str(row.clients), str(row.seed), *numbers, when]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
