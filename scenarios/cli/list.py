"""The command `fedzo list`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedzo.catalog import AGGREGATOR_LINES, ATTACKER_LINES, LIE_LINES, MIXER_LINES
from fedzo.errors import ConfigError
from scenarios.cli.options import ScenarioArgument, guard
from scenarios.runs.names import ENGINES, SCENARIOS, STRATEGIES


def list_command(
    scenario: ScenarioArgument = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="whose settings to show with SCENARIO", show_default="fedzo"),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="the same, of an engine", show_default="inprocess")
    ] = None,
) -> None:
    """Show scenarios, strategies, engines, aggregators and attacks.

    With SCENARIO, show every setting and its default.
    """
    if scenario is not None:
        from scenarios.cli.settings_help import print_settings
        from scenarios.runs.experiment import make_experiment  # it needs torch, names do not

        chosen = strategy or "fedzo", engine or "inprocess"
        work = guard(lambda: make_experiment(scenario, chosen[0], engine=chosen[1]))
        print_settings(Console(), work)
        return
    guard(lambda: _require_alone(strategy=strategy, engine=engine))
    rows: dict[str, list[tuple[str, str]]] = {
        "scenarios": [(name, entry.line) for name, entry in SCENARIOS.items()],
        "strategies": [(name, entry.line) for name, entry in STRATEGIES.items()],
        "engines": [(name, line) for name, (_, line) in ENGINES.items()],
        "aggregators (strategy.aggregator)": [*AGGREGATOR_LINES.items()],
        "before them (bucketing | median)": [*MIXER_LINES.items()],
        "attackers (fedzo attack --attacker)": [*ATTACKER_LINES.items()],
        "attacks (byzantine.attack)": [*LIE_LINES.items()],
    }
    for title, lines in rows.items():
        table = Table("name", "what it is", title=title, title_justify="left")
        for line in lines:
            table.add_row(*line)
        Console().print(table)


def _require_alone(**options: str | None) -> None:
    """Raise ConfigError for options that need a scenario."""
    for name, value in options.items():
        if value is not None:
            raise ConfigError(
                f"--{name} {value} has no effect without SCENARIO; leave it out, or name one of"
                f" {', '.join(SCENARIOS)}"
            )
