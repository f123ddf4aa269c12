"""What people see in a terminal when something is done."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from fedzo.records.terminal import say, say_place, shown, title
from fedzo.records.visible import visible
from scenarios.runs.comparison import Comparison, Row
from scenarios.runs.grid import Grid
from scenarios.runs.milestones import COSTS, Target
from scenarios.runs.result_rows import number
from scenarios.runs.run_result import RunResult, rows_of, sampled_judges
from scenarios.runs.stored import load_run
from scenarios.runs.tuning import TunedMethods


def print_result(console: Console, result: RunResult) -> None:
    """Print what a run gave."""
    _print_run(console, result, rows_of(result))
    if result.out:
        say_place(console, "figure", result.out / "figure.png")
        say_place(console, "history", result.out / "history.jsonl")


def print_deployment(console: Console, summary: dict[str, Any]) -> None:
    """Print what a deployed run gave, and what the trial of the network showed."""
    network = summary["deployment"]
    seconds = network["exchange_s"]
    known = seconds is not None and math.isfinite(seconds)
    told = f"{seconds:.1f}" if known else "unknown: a client failed in each"
    rows = [("seconds an exchange (median)", told)]
    if network["refused"]:
        rows.append(("unregistered node", network["refused"]))
    if network["restarted_nodes"]:
        rows.append(("killed and restarted", f"node of client {network['restarted_nodes'][0]}"))
    if network["revived_nodes"]:
        rows.append(("had ended, restarted", f"nodes of clients {network['revived_nodes']}"))
    result = load_run(summary["out"]).result
    _print_run(console, result, [*rows_of(result), *rows])
    say_place(console, "run", summary["out"])


def _print_run(console: Console, result: RunResult, rows: Sequence[tuple[str, str]]) -> None:
    """Print a table of what is known of a run, and what has failed."""
    experiment = result.experiment
    table = Table(
        title=title(f"{experiment.scenario} / {experiment.strategy}, seed {experiment.seed}"),
        show_header=False,
        title_justify="left",
    )
    for name, told in rows:
        table.add_row(shown(name), shown(told))
    console.print(table)
    _print_rise(console, result)
    if any(record.failures for record in result.records):
        _print_failures(console, result)


def _print_rise(console: Console, result: RunResult) -> None:
    """Say that F is higher than at the start, which is easy to overlook among the numbers.

    Not within three standard errors of the difference, where a scenario's noise is known.
    """
    first, last = result.initial_value, result.final_value
    if first is None or last is None or last <= first or len(result.stops) > 1:
        return
    noise = float(result.experiment.settings.get("scenario.noise_std", 0.0))
    judges = result.last_records[0].judges
    if judges and last - first <= 3 * noise * math.sqrt(2 / judges):
        return
    say(console, f"F has risen from {number(first)} to {number(last)}: steps may be too large")


def _print_failures(console: Console, result: RunResult) -> None:
    """Say what failed first, and whether F is still the mean of all clients."""
    failed = [record for record in result.records if record.failures]
    client, reason = next(iter(failed[0].failures.items()))
    total = sum(len(record.failures) for record in failed)
    say(
        console,
        f"{total:,} answers failed; the first: client {client}, round {failed[0].round_index}:"
        f" {visible(reason)}",
    )
    asked = sampled_judges(result.experiment) or result.experiment.num_clients
    if any(0 < record.judges < asked for record in result.records):
        console.print(
            "the objective was then the mean of those who answered, so values before and after"
            " do not compare (history.jsonl: judges)",
            highlight=False,
        )


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print a row for each strategy: mean and, where it is not zero, standard error over seeds."""
    table = Table(title=title(comparison.title), title_justify="left", padding=(0, 0, 0, 1))
    table.add_column("strategy")
    known = dict.fromkeys(name for row in comparison.rows for name in row.means)
    names = [name for name in known if name != "best_value"]
    for name in names:
        table.add_column(shown(name.replace("_", " ")), justify="right", overflow="fold")
    for row in comparison.rows:
        table.add_row(shown(row.strategy), *(_cell(name, row) for name in names))
    console.print(table)
    told = any(row.errors for row in comparison.rows)
    said = "mean ± one standard error over seeds" if told else "one seed, so there is no error"
    console.print(said, highlight=False)
    for remark in comparison.remarks:
        say(console, remark)
    if comparison.milestones:
        _print_milestones(console, comparison)
    for target in comparison.targets:
        _print_target(console, target)
    if comparison.figure:
        say_place(console, "figure", comparison.figure)


def print_tuning(console: Console, tuning: TunedMethods | None) -> None:
    """Print what was chosen for every method, and what that has cost; nothing without tuning."""
    for label, tuned in tuning.found.items() if tuning else ():
        told = ", ".join(f"{name}={value}" for name, value in tuned.best.settings.items())
        say(
            console,
            f"{label} was tuned by {len(tuned.trials)} trials, {tuned.queries:,} queries, on seeds"
            f" {', '.join(map(str, tuned.plan.tuned_on))}: {told}",
        )


def print_grid(console: Console, grid: Grid) -> None:
    """Print a table for every panel, and which row has the best worst case."""
    for panel, rows in grid.cells.items():
        table = Table(title=title(f"{grid.title} {panel}".strip()), title_justify="left")
        table.add_column("rule")
        for attack in next(iter(rows.values())):
            table.add_column(shown(attack.replace("_", " ")), justify="right", overflow="fold")
        table.add_column("worst", justify="right", overflow="fold")
        known = {row: grid.worst(panel, row) for row in rows}
        best = (max if grid.higher_is_better else min)(
            (value for value in known.values() if not math.isnan(value)), default=math.nan
        )
        for row, cells in rows.items():
            worst = number(known[row])
            means = [f"{mean:.4g}" for mean, _ in cells.values()]
            table.add_row(
                shown(row), *means, f"[bold]{worst}[/bold]" if known[row] == best else worst
            )
        console.print(table)
    console.print("mean over seeds; worst: over the attacks shown", highlight=False)
    if grid.figure:
        say_place(console, "figure", grid.figure)


def _print_target(console: Console, target: Target) -> None:
    """Print what it took to reach a level; the cheapest of each kind is bold."""
    name = f"{target.metric.replace('_', ' ')} {target.level:g}: spent until there, median"
    table = Table(title=title(name), title_justify="left")
    table.add_column("strategy")
    medians = {name: target.median(name) for name in target.spent}
    costs = [n for n in COSTS if any(found and found.get(n) for found in medians.values())] or [
        "rounds"
    ]
    known = [found for found in medians.values() if found is not None]
    least = {n: min((found[n] for found in known if n in found), default=0) for n in costs}
    for name in [*costs, "seeds"]:
        table.add_column(name, justify="right", overflow="fold")
    for name, found in medians.items():
        got = {} if found is None else found
        spent = [f"{got[n]:,.0f}" if n in got else "-" if got else "never" for n in costs]
        best = [n in got and got[n] == least[n] for n in costs]
        cells = [f"[bold]{c}[/bold]" if b else c for c, b in zip(spent, best, strict=True)]
        runs = target.spent[name]
        table.add_row(shown(name), *cells, f"{sum(run is not None for run in runs)} of {len(runs)}")
    console.print(table)


def _print_milestones(console: Console, comparison: Comparison) -> None:
    """Print the lowest F up to each position; the best of a column is bold."""
    table = Table(title="lowest F so far, median over seeds", title_justify="left")
    table.add_column("strategy")
    medians = [milestone.to_json()["median"] for milestone in comparison.milestones]
    for milestone in comparison.milestones:
        table.add_column(
            f"{milestone.limit:,g}\n{milestone.axis}", justify="right", overflow="fold"
        )
    for row in comparison.rows:
        values = [found[row.strategy] for found in medians]
        lowest = [min((v for v in found.values() if v is not None), default=0) for found in medians]
        best = [value == low for value, low in zip(values, lowest, strict=True)]
        cells = [
            f"[bold]{number(value)}[/bold]" if first else number(value)
            for value, first in zip(values, best, strict=True)
        ]
        table.add_row(shown(row.strategy), *cells)
    console.print(table)


def _cell(name: str, row: Row) -> str:
    if name not in row.means:
        return "-"
    mean, error = row.means[name], row.errors.get(name, 0.0)
    if name in ("rounds", "queries", "examples", "floats_up", "floats_down"):
        return f"{mean:,.0f}"
    if not (error and math.isfinite(mean) and math.isfinite(error)) or name == "wall_s":
        return f"{mean:.3g}"
    digits = math.floor(math.log10(abs(mean) or error)) - math.floor(math.log10(error)) + 1
    return f"{mean:.{min(max(digits, 3), 12)}g} ± {error:.1g}"
