"""The command `fedzo compare`: strategies, aggregators and lies side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fedzo.errors import ConfigError
from fedzo.records.history import AXES
from fedzo.records.lock import locked
from scenarios.cli.figure import FigureOptions
from scenarios.cli.options import (
    DryOption,
    OutputOptions,
    ScenarioArgument,
    SettingOptions,
    SizeOptions,
    ThreadsOption,
    finish,
    guard,
    merged,
    prepare,
    stderr,
)
from scenarios.runs.spaces import Space, parse_spaces

if TYPE_CHECKING:
    from scenarios.runs.dry_run import Planned


def compare_command(
    *,
    scenario: ScenarioArgument = None,
    strategies: Annotated[
        str | None, typer.Option(help="names, separated by commas (default: fedzo)")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="numbers, separated by commas (default: 0,1,2)")
    ] = None,
    size: SizeOptions,
    how: SettingOptions,
    x: Annotated[
        str | None,
        typer.Option(help=f"axis of the figure: {', '.join(AXES)}", show_default="queries"),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="the figure's file, .pdf or .svg (default: compare.png in --out)"),
    ] = None,
    drawing: FigureOptions,
    at: Annotated[
        list[str] | None,
        typer.Option(help="AXIS=N,N,...: report the lowest F up to there (queries=5000,10000)"),
    ] = None,
    reach: Annotated[
        list[str] | None,
        typer.Option(
            help="METRIC=V,V,...: what it took until five evaluations in a row had such a mean"
            " (test_accuracy=0.75,0.8)"
        ),
    ] = None,
    aggregators: Annotated[
        str | None,
        typer.Option(help="rules, separated by commas: every strategy is run with every one"),
    ] = None,
    attacks: Annotated[
        str | None,
        typer.Option(help="attacks, separated by commas, or all: a grid with each rule's worst"),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(help="KEY=V,V,...: a grid for every value (scenario.alpha=1,100)"),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="what a grid shows (default: test_accuracy or final_value); of one of your own the"
            " better end: lowest:NAME or highest:NAME"
        ),
    ] = None,
    fleets: Annotated[
        str | None,
        typer.Option(
            help="re-time all runs on these fleets (mobile,silo), which --set fleet.query_s=0.05"
            " tells more of; then the figure's axis is virtual_seconds"
        ),
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(
            min=1, help="first choose, by so many trials for each strategy, what --set leaves open"
        ),
    ] = None,
    output: OutputOptions,
    dry_run: DryOption = False,
    threads: ThreadsOption = 1,
) -> None:
    """Run several strategies on the same problems and seeds.

    A setting is given to every strategy that has it; `--set fedzo:client.mu=0.1` is for fedzo
    alone. LABEL=NAME among the strategies runs one of them under a label with its own settings:
    --strategies fzoos,paper=fzoos --set paper:strategy.variant=paper

    With --attacks, the clients that `--set byzantine.num_clients=N` names lie, in each of these
    ways in turn, and what every strategy and rule has left is shown as a grid, with its worst case:
    --strategies dshb --aggregators "mean,trimmed_mean,nnm | trimmed_mean" --attacks none,sign_flip

    With --tune N, settings that --set gives several values, or a range, are chosen for every
    strategy by N trials on other seeds (`fedzo sweep`), so that all get the same effort:
    --strategies fedzo,seedzo --tune 12 --set client.mu=0.001,0.01

    A --config file may hold strategies, seeds and a table `at` too. `fedzo plot` and `fedzo table`
    draw and compare again what --out has kept.
    """
    prepare(threads)
    from scenarios.cli.display import print_comparison, print_grid, print_tuning
    from scenarios.cli.dry import tell  # these need torch, the help does not
    from scenarios.runs.compare import check_axes, compare, labelled
    from scenarios.runs.config_file import (
        ComparisonPlan,
        parse_numbers,
        parse_positions,
        parse_words,
        read_comparison,
    )
    from scenarios.runs.dry_run import plan_grid
    from scenarios.runs.grid import (
        GridShape,
        parse_aggregators,
        parse_lies,
        parse_variation,
        run_grid,
        with_aggregators,
    )
    from scenarios.runs.sweep import Effort
    from scenarios.runs.sweep_plan import SWEEP
    from scenarios.runs.tuning import tune_methods

    out, resume = output.out, output.resume

    def work() -> dict[str, Any]:
        begun = ("experiment.toml", SWEEP)  # the second while nothing but trials has run
        if resume and not (out and any(any(out.rglob(name)) for name in begun)):
            raise ConfigError("--resume needs --out with a comparison that was begun; leave it out")
        plan = read_comparison(how.config) if how.config else ComparisonPlan()
        spaces, given = parse_spaces(how.settings or []) if tune else ({}, how.settings or [])
        fixed = replace(how, settings=given)
        base = merged(plan.experiment, {"scenario": scenario}, size, fixed)
        chosen = plan.strategies or ["fedzo"] if strategies is None else parse_words(strategies)
        drawn = plan.seeds or [0, 1, 2] if seeds is None else parse_numbers(seeds)
        base, chosen = with_aggregators(base, chosen, parse_aggregators(aggregators or ""))
        if vary and len(vary) > 1:
            raise ConfigError(
                f"--vary is given {len(vary)} times, and a grid varies one setting; leave one out"
            )
        if tune and (attacks is not None or vary):
            raise ConfigError(f"--tune {tune} has no meaning for a grid; leave it out")
        if tune and not spaces:
            raise ConfigError(
                f"--tune {tune} has nothing to choose; give a setting several values, --set"
                " client.mu=0.001,0.01, or a range, --set strategy.local_lr=log:1e-3..1e-1"
            )
        if attacks is not None or vary:
            for option in _of_figure(x, figure, drawing):
                raise ConfigError(f"{option} has no meaning for a grid; leave it out")
            if fleets:
                raise ConfigError("--fleets has no meaning for a grid; leave it out")
            if at or plan.at or reach:
                raise ConfigError("--at and --reach have no meaning for a grid; leave them out")
            shape = GridShape(
                lies=parse_lies(attacks or "", base),
                vary=parse_variation(vary[0] if vary else None),
                measure=measure or "",
            )
            if dry_run:
                return tell(plan_grid(base, chosen, drawn, shape), output.json_output)
            found = run_grid(
                base,
                chosen,
                drawn,
                shape,
                out=out,
                resume=resume,
                console=stderr,
                threads=threads,
            )
            if not output.json_output:
                print_grid(Console(), found)
            return found.to_json()
        if measure:
            raise ConfigError("--measure is for a grid: add --attacks or --vary")
        if x in (None, *AXES) and out is None and figure is None:
            for option in _of_figure(x, figure, drawing):
                what = "is the axis" if x is not None else "is"
                raise ConfigError(
                    f"{option} {what} of the figure in --out; add --out, or --figure FILE"
                )
        if figure is not None:
            from fedzo.records.plots import check_figure  # matplotlib, for who wants a figure

            check_figure(figure)
        look = drawing.look() if drawing.given else None
        positions = {**plan.at, **parse_positions(at or [])}
        levels = parse_positions(reach or [], option="reach")
        if dry_run:
            check_axes(x or "queries", positions)
            plans = _plans(base, chosen, drawn, spaces, tune, output)
            return tell(plans, output.json_output)
        tuning = None
        if tune:
            tuning = tune_methods(
                base,
                labelled(chosen),
                spaces,
                drawn,
                trials=tune,
                out=out,
                resume=resume,
                effort=Effort(threads=threads, console=None if output.json_output else stderr),
            )
            base = tuning.base
        comparison = compare(
            base,
            chosen,
            drawn,
            axis=x or ("virtual_seconds" if fleets else "queries"),
            at=positions,
            reach=levels,
            out=out,
            resume=resume,
            console=stderr,
            threads=threads,
            figure=figure,
            look=look,
            fleets=parse_words(fleets) if fleets else (),
        )
        if not output.json_output:
            print_comparison(Console(), comparison)
            print_tuning(Console(), tuning)
        return {**comparison.to_json(), **({"tuning": tuning.to_json()} if tuning else {})}

    def alone() -> dict[str, Any]:
        with locked(None if dry_run else out):
            return work()

    summary = guard(alone, output)
    finish(summary, output.json_output)
    guard(lambda: _require_drawn(summary, out))


def _of_figure(x: str | None, figure: Path | None, drawing: FigureOptions) -> list[str]:
    """Return the options of the figure that were typed."""
    named = [f"--x {x}"] * (x is not None) + [f"--figure {figure}"] * (figure is not None)
    return [*named, *drawing.given]


def _require_drawn(summary: Mapping[str, Any], out: Path | None) -> None:
    """Raise ConfigError where the curves could not be drawn as was asked, all else being done."""
    if "undrawn" in summary:
        kept = "" if out is None else f"; the runs are kept: fedzo plot {out} draws them otherwise"
        raise ConfigError(f"{summary['undrawn']}{kept}")


def _plans(
    base: Mapping[str, Any],
    strategies: Sequence[str],
    seeds: Sequence[int],
    spaces: Mapping[str, Space],
    trials: int | None,
    output: OutputOptions,
) -> "list[Planned]":
    """Plan the runs of a comparison, after the trials of each method where it is tuned."""
    from scenarios.runs.compare import labelled
    from scenarios.runs.dry_run import plan_comparison, plan_sweep
    from scenarios.runs.tuning import tuning_plans

    if not trials:
        return plan_comparison(base, strategies, seeds, out=output.out, resume=output.resume)
    return [
        found
        for label, sweep in tuning_plans(base, labelled(strategies), spaces, seeds, trials).items()
        for found in plan_sweep(sweep, label=f"{label}: trials", out=None, resume=False)
    ]
