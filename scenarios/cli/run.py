"""The command `fedzo run`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fedzo.errors import ConfigError
from scenarios.cli.options import (
    DryOption,
    OutputOptions,
    ScenarioArgument,
    SettingOptions,
    SizeOptions,
    StrategyOption,
    ThreadsOption,
    finish,
    guard,
    merged,
    prepare,
    stderr,
)

if TYPE_CHECKING:
    from scenarios.runs.experiment import Experiment


def run_command(
    *,
    scenario: ScenarioArgument = None,
    strategy: StrategyOption = None,
    size: SizeOptions,
    seed: Annotated[int | None, typer.Option(help="determines everything random")] = None,
    how: SettingOptions,
    output: OutputOptions,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:DIR",
            help="also log every round with tensorboard, mlflow or wandb (offline), into a"
            " directory; may be repeated",
        ),
    ] = None,
    dry_run: DryOption = False,
    threads: ThreadsOption = 1,
) -> None:
    """Run one federation.

    Example: fedzo run quadratic --strategy fedzo --rounds 50 --set scenario.heterogeneity=0.5

    A run that was interrupted goes on, or one that has ended, for more rounds:
    fedzo run --resume runs/first --rounds 80
    """
    prepare(threads)
    from scenarios.cli.display import print_result
    from scenarios.cli.live import Display
    from scenarios.runs.config_file import read_experiment  # they need torch, the help does not
    from scenarios.runs.experiment import make_experiment
    from scenarios.runs.extension import EXPERIMENT
    from scenarios.runs.loggers import logged
    from scenarios.runs.simulate import simulate

    def work() -> dict[str, Any]:
        place = _resumed(scenario, output)
        file = how.config or (place and place / EXPERIMENT)
        base = read_experiment(file) if file else {"settings": {}}
        if place and "scenario" not in base:
            raise ConfigError(f"{file} is no experiment that fedzo has written; restore it")
        if place and strategy not in (None, base.get("strategy")):
            raise ConfigError(
                f"--strategy {strategy}: the run in {place} is one of {base['strategy']}; leave"
                " --strategy out, or begin another run"
            )
        if place and how.engine not in (None, base.get("engine")):
            raise ConfigError(
                f"--engine {how.engine}: the run in {place} is one on {base['engine']}; leave"
                " --engine out, or begin another run"
            )
        where = replace(output, out=place) if place else output
        named = {"scenario": None if place else scenario, "strategy": strategy, "seed": seed}
        experiment = make_experiment(**merged(base, named, size, how))
        if dry_run:
            return _told(experiment, where)
        with logged(log or [], experiment) as loggers, Display(stderr, experiment) as display:
            result = simulate(
                experiment,
                out=where.out,
                resume=where.resume,
                callbacks=[*loggers, display.update],
                threads=threads,
            )
        if not output.json_output:
            print_result(Console(), result)
        return result.summary()

    finish(guard(work, output), output.json_output)


def _resumed(scenario: str | None, output: OutputOptions) -> Path | None:
    """Return the directory that `--resume DIR` alone means; what would be a scenario names it."""
    if not output.resume or (output.out is not None and scenario is not None):
        return None
    from scenarios.runs.names import SCENARIOS
    from scenarios.runs.rundir import require_begun

    place = output.out
    if scenario is not None and scenario not in SCENARIOS:
        place = Path(scenario)
    require_begun(place, resume=True)
    return place


def _told(experiment: "Experiment", output: OutputOptions) -> dict[str, Any]:
    """Say what would be run; returns what `--json` prints."""
    from scenarios.cli.dry import tell
    from scenarios.runs.dry_run import plan, require_place

    require_place(output.out, output.resume, experiment)
    return tell([plan("run", [experiment])], output.json_output)
