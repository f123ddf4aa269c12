"""The command `fedzo list`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedzo.catalog import AGGREGATOR_LINES, ATTACKER_LINES, LIE_LINES, MIXER_LINES
from scenarios.cli.options import ScenarioArgument, guard
from scenarios.runs.names import ENGINES, SCENARIOS, STRATEGIES


def list_command(
    scenario: ScenarioArgument = None,
    strategy: Annotated[str, typer.Option(help="whose settings to show with SCENARIO")] = "fedzo",
    engine: Annotated[str, typer.Option(help="the same, of an engine")] = "inprocess",
) -> None:
    """Show scenarios, strategies, engines, aggregators and attacks.

    With SCENARIO, show every setting and its default.
    """
    if scenario is not None:
        from scenarios.cli.settings_help import print_settings
        from scenarios.runs.experiment import make_experiment  # it needs torch, names do not

        work = guard(lambda: make_experiment(scenario, strategy, engine=engine))
        print_settings(Console(), work)
        return
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
