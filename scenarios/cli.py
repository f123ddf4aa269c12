"""The command line: `fedzo list | run | compare | plot | deploy`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedzo import __version__
from fedzo.errors import ConfigError
from fedzo.history import AXES
from fedzo.plots import plot_runs
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
from scenarios.compare import compare
from scenarios.config_file import (
    ComparisonPlan,
    parse_numbers,
    parse_positions,
    parse_words,
    read_comparison,
    read_experiment,
)
from scenarios.display import Progress, print_comparison, print_result
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
    """Show scenarios, strategies and engines; with SCENARIO, every setting and its default."""
    if scenario is not None:
        work = guard(lambda: make_experiment(scenario, strategy, engine=engine))
        print_settings(Console(), work)
        return
    rows = {
        "scenarios": [(name, entry.line) for name, entry in SCENARIOS.items()],
        "strategies": [(name, entry.line) for name, entry in STRATEGIES.items()],
        "engines": [(name, line) for name, (_, line) in ENGINES.items()],
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
            result = simulate(experiment, out=out, resume=resume, callbacks=[progress.update])
        if not json_output:
            print_result(Console(), result)
        return result.summary()

    finish(guard(work), json_output)


@app.command("compare")
def compare_command(
    scenario: ScenarioArgument = None,
    strategies: Annotated[
        str | None, typer.Option(help="names, separated by commas (default: fedzo)")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="numbers, separated by commas (default: 0,1,2)")
    ] = None,
    rounds: RoundsOption = None,
    clients: ClientsOption = None,
    engine: EngineOption = None,
    query_budget: BudgetOption = None,
    settings: SetOption = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML experiment; options override it")
    ] = None,
    x: Annotated[str, typer.Option(help=f"axis of the figure: {', '.join(AXES)}")] = "queries",
    at: Annotated[
        list[str] | None,
        typer.Option(help="AXIS=N,N,...: report the lowest F up to there (queries=5000,10000)"),
    ] = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    json_output: JsonOption = False,
    threads: ThreadsOption = 1,
) -> None:
    """Run several strategies on the same problems and seeds.

    A setting is given to every strategy that has it; `--set fedzo:client.mu=0.1` is for fedzo
    alone. LABEL=NAME among the strategies runs one of them under a label with its own settings:
    --strategies fzoos,paper=fzoos --set paper:strategy.variant=paper

    A --config file may hold strategies, seeds and a table [at] too.
    """
    prepare(threads)

    def work() -> dict[str, Any]:
        given = {
            "scenario": scenario,
            "num_rounds": rounds,
            "num_clients": clients,
            "engine": engine,
            "query_budget": query_budget,
        }
        plan = read_comparison(config) if config else ComparisonPlan()
        base = merged(plan.experiment, given, settings)
        chosen = plan.strategies or ["fedzo"] if strategies is None else parse_words(strategies)
        drawn = plan.seeds or [0, 1, 2] if seeds is None else parse_numbers(seeds)
        comparison = compare(
            base,
            chosen,
            drawn,
            axis=x,
            at={**plan.at, **parse_positions(at or [])},
            out=out,
            resume=resume,
            console=stderr,
        )
        if not json_output:
            print_comparison(Console(), comparison)
        return comparison.to_json()

    finish(guard(work), json_output)


app.command("deploy")(deploy_command)


@app.command()
def plot(
    directories: Annotated[list[Path], typer.Argument(help="directories of runs, or above them")],
    x: Annotated[str, typer.Option(help=f"one of {', '.join(AXES)}")] = "queries",
    y: Annotated[
        str | None, typer.Option(help="`value` or a metric (default: gap or value)")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="PNG file (default: plot-X.png beside the first)")
    ] = None,
) -> None:
    """Draw the histories of runs; runs whose directories differ in seed-N alone become one line."""

    def work() -> Path:
        runs = find_runs(directories)
        path = out or directories[0] / f"plot-{x}.png"
        try:
            plot_runs(path, runs, axis=x, quantity=y)
        except OSError as error:
            raise ConfigError(f"--out {path} cannot be written: {error.strerror}") from error
        return path

    typer.echo(f"figure: {guard(work)}")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
