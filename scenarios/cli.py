"""The command line: `fedzo list | run | compare | plot | deploy | audit | attack | defend`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedzo import __version__
from fedzo.aggregation import AGGREGATORS, MIXERS
from fedzo.byzantine import ATTACKS
from fedzo.errors import ConfigError
from fedzo.history import AXES
from fedzo.plots import check_figure, plot_runs
from fedzo.visible import visible
from scenarios.attackers import ATTACKERS
from scenarios.cli_attack import attack_command
from scenarios.cli_audit import audit_command
from scenarios.cli_compare import compare_command
from scenarios.cli_defend import defend_command
from scenarios.cli_deploy import deploy_command
from scenarios.cli_options import (
    BudgetOption,
    ClientsOption,
    EngineOption,
    JsonOption,
    OutOption,
    ResumeOption,
    RoundsOption,
    ScenarioArgument,
    SetOption,
    ThreadsOption,
    finish,
    guard,
    merged,
    prepare,
    stderr,
)
from scenarios.config_file import read_experiment
from scenarios.display import Progress, print_result
from scenarios.experiment import make_experiment
from scenarios.names import ENGINES, SCENARIOS, STRATEGIES
from scenarios.rundir import find_runs
from scenarios.settings_help import print_settings
from scenarios.simulate import simulate

app = typer.Typer(
    name="fedzo",
    help="Optimize together without seeing gradients: simulate federations of clients that can only"
    " be queried (or differentiated), and count every query, float and byte.",
    epilog="Begin with: fedzo run attack --strategy fedzo --out runs/first",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"fedzo {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_print_version, is_eager=True, help="show it"),
    ] = None,
) -> None:
    """Take the options that stand before a command."""


@app.command("list")
def list_names(
    scenario: ScenarioArgument = None,
    strategy: Annotated[str, typer.Option(help="whose settings to show with SCENARIO")] = "fedzo",
    engine: Annotated[str, typer.Option(help="the same, of an engine")] = "inprocess",
) -> None:
    """Show scenarios, strategies, engines, aggregators and attacks.

    With SCENARIO, show every setting and its default.
    """
    if scenario is not None:
        work = guard(lambda: make_experiment(scenario, strategy, engine=engine))
        print_settings(Console(), work)
        return
    rows: dict[str, list[tuple[str, str]]] = {
        "scenarios": [(name, entry.line) for name, entry in SCENARIOS.items()],
        "strategies": [(name, entry.line) for name, entry in STRATEGIES.items()],
        "engines": [(name, line) for name, (_, line) in ENGINES.items()],
        "aggregators (strategy.aggregator)": [(n, line) for n, (_, line) in AGGREGATORS.items()],
        "before them (bucketing | median)": [(n, line) for n, (_, line) in MIXERS.items()],
        "attackers (fedzo attack --attacker)": [(n, e.line) for n, e in ATTACKERS.items()],
        "attacks (byzantine.attack)": [(name, line) for name, line in ATTACKS.items()],
    }
    for title, lines in rows.items():
        table = Table("name", "what it is", title=title, title_justify="left")
        for line in lines:
            table.add_row(*line)
        Console().print(table)


@app.command()
def run(
    scenario: ScenarioArgument = None,
    strategy: Annotated[str | None, typer.Option(help="how; `fedzo list` names them")] = None,
    rounds: RoundsOption = None,
    clients: ClientsOption = None,
    seed: Annotated[int | None, typer.Option(help="determines everything random")] = None,
    engine: EngineOption = None,
    query_budget: BudgetOption = None,
    settings: SetOption = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML experiment; options override it")
    ] = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    json_output: JsonOption = False,
    threads: ThreadsOption = 1,
) -> None:
    """Run one federation.

    Example: fedzo run quadratic --strategy fedzo --rounds 50 --set scenario.heterogeneity=0.5
    """
    prepare(threads)

    def work() -> dict[str, Any]:
        given = {
            "scenario": scenario,
            "strategy": strategy,
            "num_rounds": rounds,
            "num_clients": clients,
            "seed": seed,
            "engine": engine,
            "query_budget": query_budget,
        }
        base = read_experiment(config) if config else {"settings": {}}
        experiment = make_experiment(**merged(base, given, settings))
        with Progress(stderr, experiment) as progress:
            result = simulate(
                experiment, out=out, resume=resume, callbacks=[progress.update], threads=threads
            )
        if not json_output:
            print_result(Console(), result)
        return result.summary()

    finish(guard(work), json_output)


app.command("compare")(compare_command)
app.command("deploy")(deploy_command)
app.command("audit")(audit_command)
app.command("attack")(attack_command)
app.command("defend")(defend_command)


@app.command()
def plot(
    directories: Annotated[list[Path], typer.Argument(help="directories of runs, or above them")],
    x: Annotated[str, typer.Option(help=f"one of {', '.join(AXES)}")] = "queries",
    y: Annotated[
        str | None, typer.Option(help="`value` or a metric (default: gap or value)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="file such as x.png, .pdf or .svg (default: plot-X.png beside the first)"
        ),
    ] = None,
) -> None:
    """Draw the histories of runs; runs whose directories differ in seed-N alone become one line."""

    def work() -> Path:
        if out is not None:
            check_figure(out)
        runs = find_runs(directories)
        path = out or directories[0] / f"plot-{x}.png"
        try:
            plot_runs(path, runs, axis=x, quantity=y)
        except OSError as error:
            raise ConfigError(f"--out {path} cannot be written: {error.strerror}") from error
        return path

    typer.echo(f"figure: {visible(str(guard(work)))}")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
