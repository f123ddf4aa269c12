"""The command `fedzo watch`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fedzo.errors import RunError
from fedzo.records.terminal import say
from fedzo.records.visible import visible
from scenarios.cli.options import JsonOption, finish, guard, stderr

if TYPE_CHECKING:
    from scenarios.cli.live import Display
    from scenarios.runs.watching import Watched

LOOK_S = 0.5


def watch_command(
    directory: Annotated[Path, typer.Argument(help="--out of a run or of a deployment")],
    once: Annotated[
        bool, typer.Option("--once", help="say how the run stands now, and end")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Follow a run of another process, or of a deployment, until it ends.

    Nothing in the directory is touched, and the run does not notice. On a terminal the view is
    live; elsewhere a line is printed every few seconds. --json, as --once, ends at once. The exit
    status is 1 for a run that has failed or was killed.
    """

    from scenarios.cli.live import EVERY_S, Display  # they need torch, the help does not
    from scenarios.runs.watching import Watched

    run = guard(lambda: Watched(directory))

    def follow() -> dict[str, Any]:
        life = run.life
        with Display(stderr, run.experiment, every_s=EVERY_S) as display:
            display.show(run.history.new())
            while life == "running" and not (once or json_output):
                time.sleep(LOOK_S)
                life = run.life  # first: what it wrote before it ended is read below
                display.show(run.history.new())
        if not json_output:
            say(Console(), f"{life}: {display.status.line()}")
        return _summary(display, life)

    summary = guard(follow)
    finish(summary, json_output)
    guard(lambda: _require_well(run, summary["life"]))


def _require_well(run: "Watched", life: str) -> None:
    """Raise RunError for a run that has failed or was killed, CheckpointError for lost records."""
    from scenarios.runs.run_result import ERROR
    from scenarios.runs.stored import load_run

    if life == "ended":
        load_run(run.path)
    if life == "failed":
        reason = visible((run.path / ERROR).read_text().strip())
        raise RunError(f"the run in {run.path} failed: {reason}")
    if life == "killed":
        raise RunError(
            f"the run in {run.path} was killed or interrupted: nobody works there, and it has no"
            " result; go on with --resume"
        )


def _summary(display: "Display", life: str) -> dict[str, Any]:
    status, record = display.status, display.status.record
    return {
        "life": life,
        "problem": record.problem,
        "round": record.round_index,
        "rounds": status.limits.num_rounds,
        "value": status.value,
        "best_value": status.best,
        "queries": record.queries,
        "budget_left": status.budget_left,
        "bytes": record.bytes_up + record.bytes_down,
        "epsilon": record.epsilon_run,
        "answered": record.clients_answered,
        "asked": record.clients_asked,
        "seconds_left": status.seconds_left,
    }
