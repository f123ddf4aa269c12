"""`fedzo audit`: does a private strategy add as much noise as it claims?"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fedzo.records.terminal import markup, say_place, title
from fedzo.setting_texts import parse_settings
from scenarios.cli.options import JsonOption, SeedOption, SetOption, finish, guard, prepare, stderr

if TYPE_CHECKING:
    from scenarios.runs.audit import Audit


def audit_command(
    strategy: Annotated[str, typer.Argument(help="a private one: diff2, dp_gd, diff2_zo, ...")],
    rounds: Annotated[int, typer.Option(help="rounds of a run")] = 4,
    clients: Annotated[int, typer.Option(help="clients, of five records each")] = 2,
    trials: Annotated[int, typer.Option(help="runs on each of the two data sets")] = 1000,
    confidence: Annotated[float, typer.Option(help="of the lower bounds")] = 0.95,
    noise_factor: Annotated[
        float, typer.Option(help="multiply the noise, to see a false claim refuted")
    ] = 1.0,
    seed: SeedOption = 0,
    settings: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="PNG file for the error rates")] = None,
    json_output: JsonOption = False,
) -> None:
    """Attack a private strategy on two neighboring data sets: a lower bound on its epsilon.

    The bound stays below the claim unless the claim is false; then the exit status is 1. The claim
    is epsilon=4 unless --set strategy.epsilon says another.
    Example: fedzo audit diff2 --set strategy.epsilon=2 --trials 2000
    """
    prepare(1)
    from fedzo.records.plots import check_figure  # these need torch, the help does not
    from scenarios.runs.audit import audit, draw_audit

    def work() -> dict[str, Any]:
        if out:
            check_figure(out)
            if out.is_dir() or any(p.exists() and not p.is_dir() for p in out.parents):
                raise FileExistsError(0, "it is no place for a file", str(out))
        begun = time.perf_counter()
        quiet = json_output or not stderr.is_terminal
        with Progress(console=stderr, disable=quiet, transient=True) as progress:
            task = progress.add_task(markup(f"audit {strategy}"), total=trials)
            found = audit(
                strategy,
                num_rounds=rounds,
                num_clients=clients,
                trials=trials,
                confidence=confidence,
                noise_factor=noise_factor,
                seed=seed,
                settings=parse_settings(settings or []),
                progress=lambda done: progress.update(task, completed=done),
            )
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            draw_audit(out, found)
        if not json_output:
            _print(Console(), strategy, found, out)
        result = found.result
        return {
            "strategy": strategy,
            **asdict(result),
            "refuted": result.refuted,
            "wall_s": time.perf_counter() - begun,
        }

    summary = guard(work)
    finish(summary, json_output)
    if summary["refuted"]:
        stderr.print(
            f"the claim epsilon={summary['claim']:g} is false at confidence {confidence:g}",
            style="red",
            highlight=False,
        )
        raise typer.Exit(1)


def _print(console: Console, strategy: str, found: "Audit", out: Path | None) -> None:
    result = found.result
    table = Table(title=title(f"audit of {strategy}"), show_header=False, title_justify="left")
    table.add_row("claim", f"epsilon {result.claim:g}, delta {result.delta:g}")
    table.add_row("shown, if Gaussian", f"epsilon >= {result.epsilon_low:.3f}")
    table.add_row("shown, of any mechanism", f"epsilon >= {result.epsilon_free:.3f}")
    table.add_row("confidence", f"{result.confidence:g} for both together")
    table.add_row("true / false positives", f"{result.tpr:.3f} / {result.fpr:.3f}")
    table.add_row("runs counted", f"{result.trials:,} of each data set, as many to choose by")
    console.print(table)
    if out:
        say_place(console, "figure", out)
