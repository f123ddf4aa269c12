"""Run an experiment in this process, from its first problem to its figure."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedzo.config import Given
from fedzo.errors import ConfigError, FedzoError, StorageError
from fedzo.objectives.objective import Objective
from fedzo.records.storage import storing, write_whole
from fedzo.records.strict_json import strict_json
from fedzo.runtime.threads import gradients_at_hand, torch_threads
from scenarios.problems.custom import CustomScenario, Start
from scenarios.problems.own_metrics import MeasureX
from scenarios.problems.scenario import Scenario
from scenarios.runs.engines import build_scenario, open_engine
from scenarios.runs.experiment import Experiment, build_strategy, make_experiment
from scenarios.runs.names import SCENARIOS
from scenarios.runs.position import Position
from scenarios.runs.run_result import ERROR, RESULT, RunResult
from scenarios.runs.rundir import RunDirectory, new_run_name, require_begun
from scenarios.runs.solution_files import write_solutions
from scenarios.runs.solve import Work, solve
from scenarios.runs.steps import posed
from strategies.core.base import RoundStrategy
from strategies.core.driver import Callback
from strategies.core.uncovered import warn_of_uncovered

__all__ = ["RESULT", "RunResult", "build_scenario", "build_strategy", "federate", "simulate"]


@contextmanager
def _back_again() -> Iterator[None]:
    """Come back to where this process works, wherever the code of the user's has gone."""
    home = None
    with suppress(OSError):  # it is no more
        home = os.getcwd()
    try:
        yield
    finally:
        if home is not None:
            os.chdir(home)


@_back_again()
def simulate(
    experiment: Experiment,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    scenario: Scenario | None = None,
    grid: Grid | None = None,
    threads: int = 1,
) -> RunResult:
    """Run an experiment.

    out: directory for history, checkpoints, x and figure; resume: go on with what is there, and for
    more rounds where the experiment has more. scenario: a ready one instead of the one that the
    experiment names. grid: of the deployment on whose nodes an experiment with the engine superlink
    runs. threads: of torch, for this run; sums round by it.
    Raises ConfigError for bad settings and RunError when the run cannot go on; its `result` is what
    there was until then.
    """
    out = None if out is None else Path(out)
    _check_callbacks(callbacks)
    require_begun(out, resume)
    shown, out = out, None if out is None else out.absolute()  # code of the user's may leave here
    given = scenario is not None
    with torch_threads(threads), gradients_at_hand():
        scenario = scenario or build_scenario(experiment)
        problem = posed(scenario, 0, experiment)
    own = experiment.own_data or type(scenario) is not SCENARIOS[experiment.scenario].build
    directory = None
    if out is not None:
        count = scenario.num_problems
        directory = RunDirectory(out, experiment, num_problems=count, shown=shown)
    held = nullcontext() if directory is None else directory.held(resume=resume)
    with torch_threads(threads), gradients_at_hand(), held:
        strategy = build_strategy(experiment)
        if own:
            warn_of_uncovered(strategy, experiment.seed)
        position = Position(run_name=new_run_name())
        if directory:
            state = strategy.init(problem.initial_x, experiment.num_clients)
            position = directory.load(state)
        name = position.run_name
        with (
            _failure_told(out),
            open_engine(
                experiment, scenario, given=given, out=out, run_name=name, grid=grid
            ) as engine,
            _failure_told(out),  # at once: closing an engine may take a while
        ):
            work = Work(
                experiment=experiment,
                scenario=scenario,
                strategy=strategy,
                engine=engine,
                own=own,
                directory=directory,
                callbacks=callbacks,
            )
            result = solve(work, position)
        if out:
            with _failure_told(out), storing(out):
                write_solutions(out, result)
                write_whole(out / RESULT, strict_json(result.summary()) + "\n")
                _draw(out / "figure.png", scenario, result)
    return result


def federate(
    make_objective: Callable[[int], Objective] | str,
    *,
    num_clients: int,
    strategy: str | type[RoundStrategy[Any]] | RoundStrategy[Any] = "fedzo",
    num_rounds: int = 50,
    initial_x: Start | None = None,
    seed: int = 0,
    query_budget: int | None = None,
    engine: str = "inprocess",
    settings: Mapping[str, Given] | None = None,
    metrics: MeasureX | str | None = None,
    out: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    threads: int = 1,
) -> RunResult:
    """Minimize the mean of your own clients' objectives.

    make_objective(client_id) is called once a client, 0 to num_clients - 1; on the engines ray and
    flower it is copied into their processes. "file.py:name" names one. The start is `initial_x`, or
    that of client 0's objective (a module's parameters), or the middle of the box. strategy: a
    name, a class of your own, or an object made of settings. `settings` are dotted names as of
    `--set`; a function stands for its name, as in {"strategy.aggregator": middle}. metrics: a
    function of x, a float64 array [d], or of a module at x where objectives are modules; it returns
    a dict of names and numbers, such as {"test_accuracy": 0.9}, for the history, and runs whenever
    x is judged. threads: of torch, meanwhile; more than one can be many times slower.
    """
    if "scenario.objective" in (settings or {}):
        raise ConfigError(
            "scenario.objective has no effect here, where make_objective is given; leave it out"
        )
    if isinstance(make_objective, str):
        settings = {**(settings or {}), "scenario.objective": make_objective}
    if metrics is not None and "scenario.metrics" in (settings or {}):
        raise ConfigError(
            "scenario.metrics has no effect where metrics= is given; leave one of them out"
        )
    if isinstance(metrics, str):
        settings = {**(settings or {}), "scenario.metrics": metrics}
    experiment = make_experiment(
        "custom",
        strategy,
        engine=engine,
        num_rounds=num_rounds,
        num_clients=num_clients,
        seed=seed,
        query_budget=query_budget,
        settings=settings,
    )
    scenario = CustomScenario(
        experiment.config("scenario"),
        num_clients=num_clients,
        seed=seed,
        make_objective=None if isinstance(make_objective, str) else make_objective,
        initial_x=initial_x,
        metrics=None if isinstance(metrics, str) else metrics,
    )
    return simulate(experiment, out=out, callbacks=callbacks, scenario=scenario, threads=threads)


@contextmanager
def _failure_told(out: Path | None) -> Iterator[None]:
    """Leave in a run's directory why it has failed, and the x it had; nothing of the last try."""
    if out is not None:
        (out / ERROR).unlink(missing_ok=True)
    try:
        yield
    except FedzoError as error:
        if out is not None:
            with suppress(OSError, StorageError):  # what brought us here is what is to be told
                result = getattr(error, "result", None)
                if isinstance(result, RunResult):
                    write_solutions(out, result)
                write_whole(out / ERROR, f"{type(error).__name__}: {error}\n")
        raise


def _check_callbacks(callbacks: Any) -> None:
    if not isinstance(callbacks, list | tuple) or not all(callable(one) for one in callbacks):
        raise ConfigError(
            f"callbacks={callbacks!r:.60} must be a list of functions of a snapshot, such as"
            " [lambda snapshot: None]"
        )


def _draw(path: Path, scenario: Scenario, result: RunResult) -> None:
    if scenario.draw is not None:
        scenario.draw(path, result.solutions, result.records)
        return
    experiment = result.experiment
    title = f"{experiment.scenario}, {experiment.num_clients} clients, seed {experiment.seed}"
    if result.final_value is not None:
        from fedzo.records.plots import plot_runs  # matplotlib: half a second for who draws

        plot_runs(path, {experiment.strategy: [result.records]}, title=title)
