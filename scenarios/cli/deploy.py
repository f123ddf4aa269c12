"""The command `fedzo deploy`."""

import shlex
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedzo.errors import ConfigError
from fedzo.user_code import absolute_reference, is_reference
from scenarios.cli.options import (
    DEFAULT_STRATEGY,
    BudgetOption,
    OutputOptions,
    RoundsOption,
    ScenarioArgument,
    SeedOption,
    SetOption,
    finish,
    guard,
    prepare,
    stderr,
)
from scenarios.runs.names import SCENARIOS


def deploy_command(
    *,
    scenario: ScenarioArgument = None,
    strategy: Annotated[str, typer.Option(help="as of `fedzo run`")] = DEFAULT_STRATEGY,
    rounds: RoundsOption = None,
    nodes: Annotated[int, typer.Option(help="SuperNodes, one a client")] = 2,
    seed: SeedOption = 0,
    query_budget: BudgetOption = None,
    settings: SetOption = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="certificates and node keys, made for the trial")
    ] = False,
    drill: Annotated[
        bool,
        typer.Option(
            "--drill",
            help="try an unregistered node (with --tls); kill and restart a node in mid-run",
        ),
    ] = False,
    objective: Annotated[
        str, typer.Option(help="file.py:function, the nodes' own objective, for scenario remote")
    ] = "",
    output: OutputOptions,
) -> None:
    """Try a real deployment: a SuperLink and SuperNodes on 127.0.0.1, stopped at the end.

    Example: fedzo deploy quadratic --rounds 4 --tls --drill --out runs/trial

    An exchange takes 5 to 8 seconds, because Flower starts a process for every message: ask many
    queries in each, for example --set strategy.local_steps=20 --set client.num_directions=50.
    strategy.timeout_s is the longest wait for a node. docs/deployment.md says how to run nodes for
    good.
    """
    prepare(1)
    from scenarios.cli.display import print_deployment  # these need torch, the help does not
    from scenarios.deployed.deploy import Trial, absolute_setting, deploy

    def work() -> dict[str, Any]:
        if scenario is None:
            raise ConfigError(f"no scenario is given; name one of {', '.join(SCENARIOS)}")
        if nodes < 1:
            raise ConfigError(f"--nodes {nodes} must be at least 1")
        own = [f"scenario.objective={scenario}"] if is_reference(scenario) else []
        said = [absolute_setting(text) for text in [*own, *(settings or [])]]
        config: dict[str, str | int | bool] = {
            "scenario": "custom" if own else scenario,
            "strategy": absolute_reference(strategy),
            "rounds": -1 if rounds is None else rounds,
            "seed": seed,
            "query-budget": -1 if query_budget is None else query_budget,
            "settings": shlex.join(said),
        }
        theirs = absolute_reference(objective) if objective else ""
        trial = Trial(run_config=config, nodes=nodes, tls=tls, drill=drill, objective=theirs)
        where = output.out or Path(tempfile.mkdtemp(prefix="fedzo-deploy-"))
        return deploy(trial, where, console=stderr, resume=output.resume)

    summary = guard(work, output)
    if not output.json_output:
        print_deployment(Console(), summary)
    finish(summary, output.json_output)
