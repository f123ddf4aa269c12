"""A run on a real SuperLink and SuperNodes of this machine, started and stopped here."""

import contextlib
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console

from fedzo.config import Scalar
from fedzo.errors import ConfigError, RunError
from fedzo.records.following import HistoryFollower
from fedzo.records.history import RoundRecord
from fedzo.records.lock import locked
from fedzo.records.run_log import RunLog
from fedzo.records.status import Limits
from fedzo.records.storage import write_whole
from fedzo.records.terminal import say
from fedzo.records.visible import visible
from fedzo.runtime.flower.deployment import LocalDeployment
from fedzo.user_code import REFERENCE, absolute_reference, is_reference
from scenarios.deployed.flower_app import RUN_CONFIG, experiment_of
from scenarios.problems.custom import load_function
from scenarios.runs.engines import MESSAGES
from scenarios.runs.experiment import Experiment
from scenarios.runs.extension import EXPERIMENT, require_same_or_extendable
from scenarios.runs.run_result import ERROR
from scenarios.runs.rundir import HISTORY, is_free, require_begun
from scenarios.runs.simulate import RESULT
from scenarios.runs.stored import read_experiment

RUN, FILES, APP = "run", "deployment", "app"
LOOK_S, STATUS_S = 0.5, 20.0
DRILL_TIMEOUT_S = 30

_PACKAGE = '''"""The Flower app of a trial: fedzo's own, installed on every node."""

from scenarios.deployed import flower_app

client_app = flower_app.client_app_of({strategy!r})
server_app = flower_app.server_app
'''
_PROJECT = {
    "project": {
        "name": "fedzo-trial",
        "version": "1.0.0",
        "description": "A trial deployment of fedzo",
        "dependencies": ["fedzo"],
    },
    "tool": {
        "flwr": {
            "app": {
                "publisher": "fedzo",
                "components": {
                    "serverapp": "fedzo_trial:server_app",
                    "clientapp": "fedzo_trial:client_app",
                },
                "config": RUN_CONFIG,
            }
        }
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What to deploy: the run, as in a Flower run config, and the network.

    nodes: SuperNodes; tls: certificates and node keys instead of plain HTTP; objective: each node's
    own, as "file.py:function" with an absolute path, empty for the scenario's; drill: also try an
    unregistered node (with tls), and kill and restart a node in mid-run.
    """

    run_config: Mapping[str, str | int | bool]
    nodes: int = 2
    tls: bool = False
    drill: bool = False
    objective: str = ""


def deploy(trial: Trial, out: Path, *, console: Console, resume: bool = False) -> dict[str, Any]:
    """Deploy, run, stop everything, and return the run's summary with what the trial showed.

    `out` receives run/ (as of any run), deployment/ (logs, keys, nodes' states) and app/. Raises
    ConfigError for bad settings before anything is started, RunError when the run fails.
    """
    experiment = _check(trial, out, resume)
    with locked(out):
        return _deployed(trial, experiment, out, console, resume)


def _deployed(
    trial: Trial, experiment: Experiment, out: Path, console: Console, resume: bool
) -> dict[str, Any]:
    app, target = out.absolute() / APP, out.absolute() / RUN
    (app / "fedzo_trial").mkdir(parents=True, exist_ok=True)
    (app / "pyproject.toml").write_text(tomli_w.dumps(_PROJECT))
    (app / "fedzo_trial" / "__init__.py").write_text(_PACKAGE.format(strategy=experiment.strategy))
    (target / ERROR).unlink(missing_ok=True)
    config = {**trial.run_config, "clients": trial.nodes, "out": str(target), "resume": resume}
    config["settings"] = _settings(trial, out, resume)
    node_config = {"objective": trial.objective} if trial.objective else {}
    network = LocalDeployment(
        out / FILES, num_nodes=trial.nodes, tls=trial.tls, node_config=node_config
    )
    with network, _result_aside(target):
        say(console, f"SuperLink on {network.address}, {trial.nodes} SuperNodes")
        shown: dict[str, Any] = {"address": network.address, "tls": trial.tls, "refused": None}
        if trial.drill and trial.tls:
            shown["refused"] = network.try_stranger()
            say(console, f"an unregistered node: {shown['refused']}")
        run_id = network.submit(app, config)
        log = RunLog(experiment.name, Limits(experiment.num_rounds, experiment.query_budget))
        shown |= _watch(network, run_id, target, console, log, drill=trial.drill, resume=resume)
    shown["exchange_s"] = _exchange_seconds(target / MESSAGES)
    summary: dict[str, Any] = json.loads((target / RESULT).read_text())
    return {**summary, "deployment": shown}


@contextlib.contextmanager
def _result_aside(run: Path) -> Iterator[None]:
    """Take a result away, for which the trial waits; put it back where the run did not go on."""
    result, history = run / RESULT, run / HISTORY
    before = [path.read_bytes() if path.exists() else b"" for path in (result, history)]
    result.unlink(missing_ok=True)
    try:
        yield
    finally:
        if before[0] and not result.exists() and history.read_bytes() == before[1]:
            write_whole(result, before[0])
            (run / ERROR).unlink(missing_ok=True)


def absolute_setting(text: str) -> str:
    """Return KEY=VALUE with the whole path of every file.py:name in the value."""
    key, equals, value = text.partition("=")
    if is_reference(value):
        return f"{key}={absolute_reference(value)}"
    return key + equals + REFERENCE.sub(lambda found: absolute_reference(found[0]), value)


def _check(trial: Trial, out: Path, resume: bool) -> Experiment:
    """Return what will be run; finds what is wrong before processes are started."""
    if trial.objective:
        load_function(trial.objective)
    if resume:
        require_begun(out / RUN, resume)
    settings = _settings(trial, out, resume)
    experiment = experiment_of({**trial.run_config, "settings": settings}, trial.nodes)
    if experiment.scenario == "remote" and not trial.objective:
        raise ConfigError(
            "scenario remote needs --objective file.py:function, where the nodes find theirs"
        )
    if trial.objective and experiment.scenario != "remote":
        raise ConfigError(
            f"--objective {trial.objective} is for scenario remote, not {experiment.scenario}"
        )
    if trial.drill and experiment.num_rounds < 2:
        raise ConfigError(
            f"--drill kills a node after the first round, so --rounds {experiment.num_rounds} must"
            " be at least 2"
        )
    if resume:
        require_same_or_extendable(out / RUN, experiment)
    elif out.exists() and not is_free(out):
        begun = "add --resume to go on, or " * (out / RUN / EXPERIMENT).exists()
        raise ConfigError(f"--out {out} is not empty; {begun}name another")
    return experiment


def _settings(trial: Trial, out: Path, resume: bool) -> str:
    """Return the settings of the run, with a record of its messages.

    In a drill nobody waits an hour for the node that is killed. A run that goes on waits as long as
    before.
    """
    settings = f"{trial.run_config.get('settings', '')} engine.record=true".strip()
    if "strategy.timeout_s=" in settings or not (trial.drill or resume):
        return settings
    wait_s: Scalar = DRILL_TIMEOUT_S
    if resume:
        wait_s = read_experiment(out / RUN / EXPERIMENT).settings["strategy.timeout_s"]
    return f"{settings} strategy.timeout_s={wait_s}"


def _watch(
    network: LocalDeployment,
    run_id: int,
    target: Path,
    console: Console,
    log: RunLog,
    *,
    drill: bool,
    resume: bool,
) -> dict[str, list[int]]:
    """Tell every round until the run has ended; return the nodes that have been started again."""
    asked_at, status = time.monotonic(), ""
    history = HistoryFollower(target / HISTORY)
    records: list[RoundRecord] = list(history.new()) if resume else []  # told when they were made
    restarted: list[int] = []
    revived: set[int] = set()
    while True:
        time.sleep(LOOK_S)
        for node in network.revive():
            say(console, f"the SuperNode of client {node} had ended, and was started again")
            revived.add(node)
        for record in history.new():
            say(console, visible(record.line()))
            log.tell(record)
            records.append(record)
        if drill and not restarted and records and records[-1].round_index >= 1:
            pid = network.kill_node(0)
            console.print(f"killed the SuperNode of client 0 (pid {pid}), and started it again")
            network.start_node(0)
            restarted.append(0)
        if (target / RESULT).exists():
            return {"restarted_nodes": restarted, "revived_nodes": sorted(revived)}
        if (target / ERROR).exists():
            raise RunError(f"the run failed: {(target / ERROR).read_text().strip()}")
        if time.monotonic() - asked_at > STATUS_S:
            asked_at = time.monotonic()
            with contextlib.suppress(RunError):  # asked again later; the run may be well
                status = network.status(run_id)
            if status.startswith("finished") and not (target / RESULT).exists():
                told = network.log("superlink")[-1000:]
                raise RunError(f"the run ended as {status} without a result; its log says: {told}")


def _exchange_seconds(path: Path) -> float | None:
    """Return the median time of an exchange that everybody answered; None where none is told."""
    waits: dict[str, list[float]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            message = json.loads(line)
        except ValueError:  # two lines of which the first was cut short by an earlier release
            continue
        if message["way"] == "up" and "wait_s" in message:
            answered = message["outcome"] == "answered"
            waits.setdefault(message["exchange"], []).append(message["wait_s"] if answered else -1)
    whole = [max(each) for each in waits.values() if min(each) >= 0]
    return statistics.median(whole) if whole else None
