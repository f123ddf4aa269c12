"""What `--dry-run` prints: what would be run, and what it would take."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from fedzo.records.terminal import say, shown, title
from scenarios.runs.dry_run import Planned
from scenarios.runs.rehearsal import COUNTED

NOTHING = "nothing was asked or written"


def print_plans(console: Console, plans: Sequence[Planned]) -> None:
    """Print every plan, and what all of them take together."""
    for planned in plans:
        _print_plan(console, planned)
    if len(plans) > 1:
        runs = sum(planned.runs for planned in plans)
        known = [planned.totals(planned.runs) for planned in plans]
        told = [
            f"{sum(t[n] for t in known):,} {n.replace('_', ' ')}" for n in COUNTED if all(known)
        ]
        say(console, f"all {runs} runs: {', '.join(told) or 'not known beforehand'}")
    say(console, NOTHING)


def tell(plans: Sequence[Planned], json_output: bool) -> dict[str, Any]:
    """Say what would be run, unless as JSON; returns what `--json` prints."""
    if not json_output:
        print_plans(Console(), plans)
    return {"dry_run": True, "runs": [planned.to_json() for planned in plans]}


def _print_plan(console: Console, planned: Planned) -> None:
    made = planned.experiment
    say(console, f"{planned.label}: {', '.join(_heads(planned))}", style="bold")
    if planned.changed:
        table = Table("setting", "value", "default", title=title("not the default"))
        for name, (value, usual) in planned.changed.items():
            table.add_row(shown(name), shown(value), shown("-" if usual is None else usual))
        console.print(table)
    if planned.estimate is None:
        say(console, f"what it takes is not known beforehand: {planned.unknown}")
        return
    table = Table("estimate", title=title("what it takes, if everybody answers"))
    for name in ("a round", "a run", "in all"):
        table.add_column(name, justify="right", overflow="fold")
    a_run, totals = planned.totals(1), planned.totals(planned.runs)
    for name in COUNTED:
        if totals[name]:
            numbers = (planned.estimate.a_round[name], a_run[name], totals[name])
            table.add_row(name.replace("_", " "), *(f"{number:,.0f}" for number in numbers))
    console.print(table)
    a_round = planned.estimate.a_round["queries"]
    if made.query_budget is not None and a_round:
        rounds = f"about {made.query_budget / a_round:,.0f} such rounds"
        say(console, f"a query budget of {made.query_budget:,} is for {rounds}")
    if planned.estimate.rounds < made.num_rounds:
        say(console, f"taken from the first {planned.estimate.rounds} rounds")


def _heads(planned: Planned) -> list[str]:
    made = planned.experiment
    seeds = ", ".join(map(str, planned.seeds))
    return [
        f"{made.scenario} / {made.strategy}",
        f"{made.num_clients:,} clients",
        f"{made.num_rounds:,} rounds",
        f"seed{'s' * (len(planned.seeds) > 1)} {seeds}",
        *([f"{planned.repeats} times"] if planned.repeats > 1 else []),
        f"engine {made.engine}",
        *([] if planned.dim is None else [f"dim {planned.dim:,}"]),
    ]
