"""The Flower app: what `flwr run .` runs, in Flower's simulation and on a SuperLink.

The run config says what to run, with the names of the command line; `settings` holds any number of
`key=value` as `--set` takes them. A SuperNode's --node-config may say, beside partition-id and
num-partitions, where its own objective is (objective="/path/box.py:function"), where it keeps what
its rule remembers (state-dir), and on what device it computes (device).
"""

import json
import shlex
import time
from collections.abc import Mapping
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from clients.app import build_app
from fedzo.config import Scalar
from fedzo.errors import ConfigError, ObjectiveError, RunError
from fedzo.objectives.box import bound_text, holds_box
from fedzo.objectives.objective import Objective
from fedzo.objectives.problem import Problem
from fedzo.records.run_log import logged_to
from fedzo.runtime.local import Environment, FunctionEnvironment
from fedzo.setting_texts import parse_setting
from scenarios.problems.custom import load_function
from scenarios.problems.remote import RemoteScenario
from scenarios.runs.engines import ExperimentEnvironment, RulesOf
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.run_result import ERROR
from scenarios.runs.simulate import simulate
from strategies.core.driver import Snapshot

ENGINE = "superlink"
RUN_CONFIG: dict[str, str | int | bool] = {
    "scenario": "quadratic",
    "strategy": "fedzo",
    "rounds": -1,
    "clients": 0,
    "seed": 0,
    "query-budget": -1,
    "settings": "",
    "out": "",
    "resume": False,
    "log-file": "",
}
"""What a run config may say, and what it says when it does not; -1 is the scenario's default."""


def experiment_of(run_config: Mapping[str, Any], num_clients: int) -> Experiment:
    """Resolve the experiment that a run config names.

    Raises ConfigError as make_experiment does, and for settings that are not key=value.
    """
    said = {**RUN_CONFIG, **run_config}
    settings: dict[str, Scalar] = dict(
        parse_setting(text) for text in shlex.split(str(said["settings"]))
    )
    rounds, budget = int(said["rounds"]), int(said["query-budget"])
    return make_experiment(
        str(said["scenario"]),
        str(said["strategy"]),
        engine=ENGINE,
        num_rounds=None if rounds < 0 else rounds,
        num_clients=num_clients,
        seed=int(said["seed"]),
        query_budget=None if budget < 0 else budget,
        settings=settings,
    )


def environment_of(context: Context) -> Environment:
    """Return the objectives of a node: its own, or those of the scenario that the run names."""
    own = context.node_config.get("objective")
    if own:
        experiment = experiment_of(context.run_config, 1)
        if experiment.scenario != "remote":
            raise ConfigError(
                f"this node has its own objective, {own}, and the run is of scenario"
                f" {experiment.scenario}; run scenario remote, or start the node without objective"
            )
        config, make = experiment.config("scenario"), _own_objective(str(own))
        run = RemoteScenario(config, num_clients=1, seed=0).problem(0)
        return FunctionEnvironment(
            lambda client: _on_the_runs_box(make(client), run), config.noise_std
        )
    clients = int(context.run_config.get("clients", 0))
    clients = clients or int(context.node_config["num-partitions"])
    return ExperimentEnvironment(experiment_of(context.run_config, clients).to_toml())


@lru_cache(maxsize=1)
def _own_objective(reference: str) -> Any:
    function = load_function(reference)

    @lru_cache(maxsize=1)
    def make(client: int) -> Objective:
        return function(client)

    return make


def _on_the_runs_box(objective: Objective, run: Problem) -> Objective:
    """Return a node's objective; raises ObjectiveError where it does not allow the run's box.

    There x would be moved into the node's box in silence, and the value be that of another x.
    """
    dim = len(run.initial_x)
    if objective.dim == dim and holds_box(objective, run):
        return objective
    raise ObjectiveError(
        f"this node's objective has {objective.dim} variables from {bound_text(objective.lower)} to"
        f" {bound_text(objective.upper)}, the run {dim} from {bound_text(run.lower)} to"
        f" {bound_text(run.upper)}; set scenario.dim, and scenario.lower and upper or"
        " scenario.bounds, or give the objective the run's dim, lower and upper"
    )


def client_app_of(strategy: str) -> ClientApp:
    """Return the ClientApp that also answers the questions of a strategy of the user's."""
    return build_app(environment_of, rules=RulesOf(strategy))


client_app = build_app(environment_of)
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment of the run config on the nodes of the grid."""
    config = context.run_config
    out = Path(str(config["out"])).absolute() if config.get("out") else None
    try:
        clients = int(config.get("clients", 0)) or count_nodes(grid)
        experiment = experiment_of(config, clients)
        log = str(config.get("log-file", ""))
        with logged_to(Path(log), "info") if log else nullcontext():
            result = simulate(
                experiment,
                out=out,
                resume=bool(config.get("resume", False)),
                callbacks=[_tell(experiment)],
                grid=grid,
            )
    except Exception as error:  # whatever it is, whoever waits for the result wants to know
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / ERROR).write_text(f"{type(error).__name__}: {error}\n")
        raise
    print(json.dumps(result.summary()), flush=True)


def count_nodes(grid: Grid, *, quiet_s: float = 2.0, wait_s: float = 300.0) -> int:
    """Return how many nodes there are once their number has not changed for a while.

    Raises RunError when there is none in time.
    """
    end, count, since = time.monotonic() + wait_s, 0, time.monotonic()
    while time.monotonic() < end:
        now = len(list(grid.get_node_ids()))
        if now != count:
            count, since = now, time.monotonic()
        if count and time.monotonic() - since >= quiet_s:
            return count
        time.sleep(0.1)
    raise RunError(f"{count} SuperNodes are connected after {wait_s:g} s; start SuperNodes first")


def _tell(experiment: Experiment) -> Any:
    """Return the callback that prints a line now and then, for logs that others read."""
    every = max(1, experiment.num_rounds // 20)

    def tell(snapshot: Snapshot) -> None:
        record = snapshot.record
        if record.round_index % every == 0 or snapshot.stop:
            print(record.line(), flush=True)

    return tell
