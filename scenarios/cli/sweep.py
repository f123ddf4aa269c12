"""The command `fedzo sweep`."""

from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedzo.errors import ConfigError
from fedzo.records.lock import locked
from fedzo.records.storage import storing
from fedzo.records.terminal import say_place, shown
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
from scenarios.runs.proposals import SEARCHES
from scenarios.runs.spaces import parse_spaces

if TYPE_CHECKING:
    from scenarios.runs.comparison import Comparison
    from scenarios.runs.experiment import Experiment
    from scenarios.runs.sweep import Tuned

_SHOWN = 10


def sweep_command(
    *,
    scenario: ScenarioArgument = None,
    strategy: StrategyOption = None,
    size: SizeOptions,
    how: SettingOptions,
    trials: Annotated[
        int | None, typer.Option(help="how many settings are tried (default: the whole grid)")
    ] = None,
    search: Annotated[
        str, typer.Option(help=f"{', '.join(SEARCHES)}; auto is a grid where --trials allow one")
    ] = "auto",
    seeds: Annotated[
        str | None,
        typer.Option(
            help="on which the best is reported, separated by commas", show_default="0,1,2"
        ),
    ] = None,
    tuning_seeds: Annotated[
        str, typer.Option(help="on which trials run, none of --seeds (default: two above them)")
    ] = "",
    measure: Annotated[
        str,
        typer.Option(
            help="what decides: final_value, best_value, queries or a metric; of one of your own"
            " the better end: lowest:NAME or highest:NAME"
        ),
    ] = "final_value",
    prune: Annotated[
        bool, typer.Option(help="stop trials whose curve is above the median of earlier ones")
    ] = True,
    processes: Annotated[int, typer.Option(min=1, max=4, help="trials at a time")] = 1,
    ray: Annotated[
        str,
        typer.Option(
            metavar="local|ADDRESS", help="run trials as tasks of Ray, here or on a cluster"
        ),
    ] = "",
    output: OutputOptions,
    dry_run: DryOption = False,
    threads: ThreadsOption = 1,
) -> None:
    """Try settings, and report the best of them on seeds on which nothing was tuned.

    Of what --set gives several values, or a range, one is chosen; the rest is given:
    --set client.mu=0.001,0.01 --set strategy.local_lr=log:1e-3..1e-1

    fedzo sweep --resume DIR goes on with a sweep as it was begun, for more --trials if you like.

    Example: fedzo sweep quadratic --strategy fedzo --trials 8 --set strategy.local_lr=log:1e-3..1
    """
    prepare(threads)
    from scenarios.cli.dry import tell  # these need torch, the help does not
    from scenarios.runs.config_file import parse_numbers, read_experiment
    from scenarios.runs.dry_run import plan_sweep
    from scenarios.runs.names import SCENARIOS
    from scenarios.runs.sweep import Effort, tune
    from scenarios.runs.sweep_figure import draw_sensitivity
    from scenarios.runs.sweep_plan import SweepPlan, begun_sweep

    resume = output.resume
    alone = resume and output.out is None and scenario is not None and scenario not in SCENARIOS
    out = Path(str(scenario)) if alone else output.out

    def planned() -> SweepPlan:
        if resume and out is None:
            raise ConfigError(
                "--resume needs the directory of a sweep that was begun: --resume ./DIR, or --out"
            )
        if alone:
            assert out is not None
            begun, told = begun_sweep(out), (tuning_seeds, search, measure, prune)
            if any((strategy, size != SizeOptions(), how != SettingOptions(), seeds)) or told != (
                "", "auto", "final_value", True,
            ):  # fmt: skip
                raise ConfigError(
                    f"--resume {out} goes on with the sweep as it was begun, for more --trials if"
                    " you like; leave out what else says how, or name it with --out and the"
                    " options it was begun with"
                )
            return begun if trials is None else replace(begun, trials=trials)
        spaces, given = parse_spaces(how.settings or [])
        file = read_experiment(how.config) if how.config else {"settings": {}}
        named = {"scenario": scenario, "strategy": strategy}
        base = merged(file, named, size, replace(how, settings=given))
        of_file = [base.pop("seed")] if "seed" in base else [0, 1, 2]
        return SweepPlan(
            base=base,
            spaces=spaces,
            seeds=of_file if seeds is None else parse_numbers(seeds),
            tuning_seeds=parse_numbers(tuning_seeds),
            search=search,
            trials=trials,
            measure=measure,
            prune=prune,
        )

    def work() -> dict[str, Any]:
        plan = planned()
        if dry_run:
            plans = plan_sweep(plan, label="trials", out=out, resume=resume)
            return tell(plans, output.json_output)
        effort = Effort(processes, threads, ray, None if output.json_output else stderr)
        tuned = tune(plan, out=out, resume=resume, effort=effort)
        report = _reported(tuned, out, resume, threads)
        if out:
            with storing(out):
                draw_sensitivity(out / "sensitivity.png", tuned)
        if not output.json_output:
            _print(Console(), tuned, report, out)
        return _summary(tuned, report, out)

    def locked_work() -> dict[str, Any]:
        with locked(None if dry_run else out):
            return work()

    finish(guard(locked_work, output), output.json_output)


def _reported(tuned: "Tuned", out: Path | None, resume: bool, threads: int) -> "Comparison":
    """Run the best settings on the seeds that are reported."""
    from scenarios.runs.compare import compare

    plan, best = tuned.plan, tuned.experiment
    base = {name: value for name, value in plan.base.items() if name != "strategy"}
    base["settings"] = {**plan.base.get("settings", {}), **tuned.best.settings}
    if out is not None and resume:
        _leave_out(out / "best", tuned.experiment)
    return compare(
        base,
        [f"best={best.strategy}"],
        plan.seeds,
        out=out,
        resume=resume and out is not None,
        threads=threads,
        excused=plan.spaces.keys(),
    )


def _leave_out(place: Path, best: "Experiment") -> None:
    """Remove the runs of what was the best before more trials."""
    from scenarios.runs.stored import read_experiment

    stored = [read_experiment(path) for path in place.glob("seed-*/experiment.toml")]
    if any(replace(one, seed=best.seed) != best for one in stored):
        with storing(place):
            rmtree(place)


def _summary(tuned: "Tuned", report: "Comparison", out: Path | None) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "search": tuned.plan.search,
        "measure": tuned.plan.measure,
        "best": dict(tuned.best.settings),
        "trials": [
            {
                "trial": trial.index,
                "settings": dict(trial.settings),
                "status": trial.status,
                "partial": trial.partial,
                "values": list(trial.values),
                "queries": trial.queries,
            }
            for trial in tuned.trials
        ],
        "tuning_seeds": list(tuned.plan.tuned_on),
        "tuning_queries": tuned.queries,
        "report": report.to_json(),
        "out": None if out is None else str(out),
    }


def _print(console: Console, tuned: "Tuned", report: "Comparison", out: Path | None) -> None:
    """Print the best trials, what they give on other seeds, and what it has cost."""
    from scenarios.cli.display import print_comparison

    plan = tuned.plan
    measure = plan.decided_by
    title = f"the best trials: {measure.end} {shown(measure.name)} first"
    table = Table("trial", title=title, title_justify="left")
    for name in (*plan.spaces, measure.name, "queries"):
        table.add_column(shown(name))
    ranked = sorted(tuned.trials, key=lambda trial: trial.rank)
    for trial in ranked[:_SHOWN]:
        done = trial.status == "done"
        mean = f"{sum(trial.values) / len(trial.values):.6g}" if done else trial.status
        mean += " (partial)" if trial.partial else ""
        chosen = [shown(str(value)) for value in map(trial.settings.get, plan.spaces)]
        table.add_row(str(trial.index), *chosen, shown(mean), f"{trial.queries:,}")
    console.print(table)
    stopped = sum(trial.status == "stopped" for trial in tuned.trials)
    console.print(
        f"{len(tuned.trials)} trials ({plan.search}) on seeds {', '.join(map(str, plan.tuned_on))},"
        f" {stopped} stopped early: {tuned.queries:,} queries",
        highlight=False,
    )
    print_comparison(console, report)
    if out:
        say_place(console, "best settings", out / "best.toml")
        say_place(console, "sensitivity", out / "sensitivity.png")
