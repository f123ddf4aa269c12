"""The command `fedzo run`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from scenarios.cli.options import (
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


def run_command(
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
    from scenarios.cli.display import Progress, print_result
    from scenarios.runs.config_file import read_experiment  # they need torch, the help does not
    from scenarios.runs.experiment import make_experiment
    from scenarios.runs.simulate import simulate

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
