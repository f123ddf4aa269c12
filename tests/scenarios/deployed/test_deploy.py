"""A SuperLink and SuperNodes as processes: the same result, refusals, restarts, resumption."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from rich.console import Console
from typer.testing import CliRunner

from clients import build_client_app
from fedzo.errors import ConfigError, ObjectiveError, RunError
from fedzo.runtime.flower.deployment import LocalDeployment
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.flower.processes import MARK
from scenarios.cli.app import app
from scenarios.deployed import deploy as deployment
from scenarios.deployed.deploy import Trial, absolute_setting, deploy
from scenarios.deployed.flower_app import RUN_CONFIG, environment_of, experiment_of
from scenarios.problems.remote import RemoteConfig, RemoteScenario
from scenarios.runs.engines import ExperimentEnvironment
from scenarios.runs.experiment_file import sealed_toml
from scenarios.runs.simulate import simulate

CLI = [sys.executable, "-m", "scenarios.cli"]
SMALL = ("--set", "scenario.dim=12", "--set", "client.estimator=residual")


def run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([*CLI, *arguments, "--json"], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refused(*arguments: str) -> str:
    """Return what `fedzo deploy` says to a mistake, in this process: it starts none."""
    done = CliRunner().invoke(app, ["deploy", *arguments, "--json"])
    assert done.exit_code == 2, done.stdout
    assert done.stdout == ""
    return done.stderr


@pytest.mark.slow
def test_a_deployed_run_equals_a_simulated_one(tmp_path: Path) -> None:
    """Two exchanges a round, of two kinds, with client state: SCAFFOLD, type I."""
    arguments = ("quadratic", "--strategy", "scaffold1", "--rounds", "3", "--seed", "4", *SMALL)
    deployed = run("deploy", *arguments, "--nodes", "2", "--out", str(tmp_path / "net"))
    expected = run(
        "run", *arguments, "--clients", "2", "--set", "engine.chunk_size=1", "--out",
        str(tmp_path / "here"),
    )  # fmt: skip
    names = ("final_value", "queries", "floats_up", "floats_down", "bytes_up", "rounds")
    assert {n: deployed[n] for n in names} == {n: expected[n] for n in names}
    assert deployed["engine"] == "superlink"
    assert deployed["deployment"]["exchange_s"] < 30
    assert deployed["clients_failed"] == 0


@pytest.mark.slow
def test_the_drill_refuses_a_stranger_and_survives_a_killed_node(tmp_path: Path) -> None:
    out = tmp_path / "net"
    arguments = ("quadratic", "--rounds", "14", "--tls", "--drill", *SMALL)
    result = run("deploy", *arguments, "--out", str(out))
    assert result["rounds"] == 14
    assert "Failed to activate SuperNode" in result["deployment"]["refused"]
    assert result["deployment"]["restarted_nodes"] == [0]
    history = [
        json.loads(line) for line in (out / "run" / "history.jsonl").read_text().splitlines()
    ]
    missed = [record["round_index"] for record in history if "0" in record["failures"]]
    assert missed, "the killed node missed a round"
    assert max(missed) < 14, "and came back"
    assert not any("1" in record["failures"] for record in history)
    assert (out / "deployment" / "node-0").stat().st_mode & 0o077 == 0, "keys are private"


def left_behind(out: Path) -> list[str]:
    """Return the commands of processes that a deployment has started."""
    mark, found = f"{MARK}={out / 'deployment'}:".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_deployed_run_that_is_killed_resumes_to_the_same_result(tmp_path: Path) -> None:
    arguments = ("deploy", "quadratic", "--rounds", "5", "--seed", "2", *SMALL)
    whole = run(*arguments, "--out", str(tmp_path / "whole"))
    out = tmp_path / "cut"
    history = out / "run" / "history.jsonl"
    process = subprocess.Popen([*CLI, *arguments, "--out", str(out)], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 200
    while time.monotonic() < end and not (history.exists() and history.read_text().count("\n") > 2):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert not left_behind(out), "nothing is left behind"
    assert history.read_text().count("\n") < 6, "it was stopped in mid-run"
    resumed = run(*arguments, "--out", str(out), "--resume")
    names = ("final_value", "queries", "floats_up", "rounds")
    assert {n: resumed[n] for n in names} == {n: whole[n] for n in names}


@pytest.mark.slow
def test_nodes_with_their_own_objective(tmp_path: Path) -> None:
    box = tmp_path / "box.py"
    box.write_text(
        "from fedzo.objectives.objective import CallableObjective\n"
        "def make(client):\n"
        "    return CallableObjective(function=lambda x: float(((x - 0.1 * client) ** 2).sum()),\n"
        "                             dim=4, lower=-1.0, upper=1.0)\n"
    )
    arguments = ("--rounds", "2", "--set", "scenario.dim=4", "--set", "scenario.start=0.95")
    result = run(
        "deploy", "remote", "--objective", f"{box}:make", *arguments, "--out", str(tmp_path / "net")
    )
    assert result["initial_value"] == pytest.approx(4 * (0.81 + 0.64) / 2)
    assert result["final_value"] < result["initial_value"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("quadratic", "--nodes", "0"), "--nodes 0 must be at least 1"),
        (("remote",), "--objective file.py:function"),
        (("quadratic", "--objective", "x.py:f"), "which is not a file"),
        (("quadratic", "--set", "scenario.dmi=3"), "did you mean scenario.dim"),
        (("quadratic", "--drill", "--rounds", "1"), "--rounds 1 must be at least 2"),
        (("quadratic", "--resume"), "holds no run; leave --resume out"),
        ((), "no scenario is given"),
    ],
)
def test_mistakes_are_found_before_anything_is_started(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "net"
    assert message in refused(*arguments, "--out", str(out))
    assert not out.exists()


def test_a_finished_trial_is_left_alone_by_one_of_other_settings(tmp_path: Path) -> None:
    trial = Trial(run_config={"scenario": "quadratic", "rounds": 3, "settings": ""}, drill=True)
    config = {**trial.run_config, "settings": deployment._settings(trial, tmp_path, False)}
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    toml = sealed_toml(experiment_of(config, trial.nodes).to_toml())
    (run_folder / "experiment.toml").write_text(toml)
    (run_folder / "result.json").write_text("{}")
    without = replace(trial, drill=False)
    made = deployment._check(without, tmp_path, resume=True)
    assert made.settings["strategy.timeout_s"] == 30.0, "it goes on as it was begun"
    said = refused("quadratic", "--set", "scenario.dim=7", "--rounds", "3", "--out", str(tmp_path),
                   "--resume")  # fmt: skip
    assert "holds another experiment (there dim = " in said
    assert (run_folder / "result.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    assert "is not empty" in refused("quadratic", "--out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_run_config_reaches_every_option() -> None:
    config = {
        "scenario": "quadratic",
        "strategy": "fzoos",
        "rounds": 7,
        "seed": 3,
        "query-budget": 500,
        "settings": "scenario.dim=9 strategy.num_directions=4 strategy.min_answers=2",
    }
    experiment = experiment_of(config, 3)
    assert (experiment.num_rounds, experiment.seed, experiment.query_budget) == (7, 3, 500)
    assert experiment.settings["scenario.dim"] == 9
    assert experiment.settings["strategy.min_answers"] == 2
    environment = ExperimentEnvironment(experiment.to_toml())
    assert environment.cohort([0, 1, 2], 0).dim == 9
    with pytest.raises(ConfigError, match=r"did you mean scenario\.dim"):
        experiment_of({"settings": "scenario.din=9"}, 2)


def test_a_node_with_its_own_objective_answers_remote_runs_only(tmp_path: Path) -> None:
    box = tmp_path / "box.py"
    box.write_text(
        "from fedzo.objectives.objective import CallableObjective\n"
        "import numpy as np\n"
        "make = lambda client: CallableObjective(function=lambda x: float(x.sum()), dim=4,\n"
        "                                         lower=np.array([0.0, -1.0, -1.0, 20.0]),\n"
        "                                         upper=np.array([1.0, 1.0, 1.0, 90.0]))\n"
    )
    node = {"partition-id": 0, "num-partitions": 2, "objective": f"{box}:make"}
    told = {"scenario": "remote", "settings": "scenario.dim=4 scenario.bounds=0:1,-1:1,-1:1,20:90"}
    context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config=told)
    assert environment_of(context).cohort([0], 0).dim == 4
    others = ("scenario.dim=4", "scenario.dim=3", "scenario.dim=2 scenario.bounds=0:1,0:1")
    for other in others:
        context.run_config["settings"] = other
        with pytest.raises(ObjectiveError, match=r"this node's objective has 4 variables from \[0"):
            environment_of(context).cohort([0], 0)
    box.write_text(
        "from fedzo.objectives.objective import CallableObjective\n"
        "free = lambda client: CallableObjective(function=lambda x: float(x.sum()), dim=4)\n"
    )
    node["objective"] = f"{box}:free"
    context.run_config["settings"] = "scenario.dim=4"
    assert environment_of(context).cohort([0], 0).dim == 4, "it allows all that the run asks"
    context.run_config.update(scenario="quadratic", settings="")
    with pytest.raises(ConfigError, match="this node has its own objective"):
        environment_of(context)


def test_nodes_and_server_must_agree_on_the_number_of_clients() -> None:
    experiment = experiment_of({"settings": "scenario.dim=5 engine.wait_s=0.2"}, 2)
    app = build_client_app(ExperimentEnvironment(experiment.to_toml()))
    with pytest.raises(ConfigError, match="the nodes say that there are 3 clients, the run has 2"):
        simulate(experiment, grid=InProcessGrid(app, num_clients=3))


def test_remote_objectives_need_nodes(tmp_path: Path) -> None:
    from scenarios.runs.experiment import make_experiment

    with pytest.raises(ConfigError, match="objectives on nodes"):
        simulate(make_experiment("remote", "fedzo"))
    with pytest.raises(ConfigError, match=r"scenario\.start=3\.0 must be from 0 to 1"):
        simulate(make_experiment("remote", "fedzo", settings={"scenario.start": 3.0}))


@pytest.mark.parametrize("bounds", ["0:1", "0:1,2", "0:1,2:1", "0:1,a:1", "0:1,0:1:2", "0:1,nan:1"])
def test_bounds_that_are_none_are_refused(bounds: str) -> None:
    with pytest.raises(ConfigError, match=r"bounds|is empty|NaN"):
        RemoteConfig(dim=2, bounds=bounds)


def test_variables_with_boxes_of_their_own_start_in_them() -> None:
    config = RemoteConfig(dim=2, bounds="0:1,20:90", start=0.1)
    problem = RemoteScenario(config, num_clients=2, seed=0).problem(0)
    assert problem.initial_x.tolist() == [0.1, 27.0]


def test_a_deployment_without_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_nodes=0"):
        LocalDeployment(tmp_path, num_nodes=0)


@pytest.mark.slow
def test_nodes_answer_the_questions_of_a_strategy_of_the_users(tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / "docs" / "examples" / "own_question.py"
    arguments = ("quadratic", "--strategy", f"{example}:MajorityVote", "--rounds", "2")
    small = ("--set", "scenario.dim=12")
    deployed = run("deploy", *arguments, *small, "--nodes", "2", "--out", str(tmp_path / "net"))
    chunks = ("--set", "engine.chunk_size=1")
    expected = run("run", *arguments, *small, *chunks, "--clients", "2")
    assert deployed["final_value"] == expected["final_value"] != expected["initial_value"]


def test_settings_of_a_deployment_hold_whole_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    told = absolute_setting("strategy.aggregator=nnm | a/mine.py:low(keep=2)")
    assert told == "strategy.aggregator=nnm | /tmp/a/mine.py:low(keep=2)"
    assert (
        absolute_setting("scenario.objective=my box.py:f") == "scenario.objective=/tmp/my box.py:f"
    )
    assert absolute_setting("client.mu=0.1") == "client.mu=0.1"


def test_a_trial_may_leave_the_strategy_to_the_run_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise RunError("no network in this test")

    monkeypatch.setattr("scenarios.deployed.deploy.LocalDeployment", no_network)
    with pytest.raises(RunError, match="no network"):
        deploy(Trial(run_config={"rounds": 1}), tmp_path / "net", console=Console(quiet=True))
    package = tmp_path / "net" / "app" / "fedzo_trial" / "__init__.py"
    assert f"client_app_of({RUN_CONFIG['strategy']!r})" in package.read_text()


@pytest.mark.slow
def test_a_superlink_that_ends_ends_the_trial(tmp_path: Path) -> None:
    with LocalDeployment(tmp_path, num_nodes=1) as network:
        assert network.revive() == []
        network._processes["superlink"].kill()
        network._processes["superlink"].wait()
        with pytest.raises(RunError, match="the SuperLink has ended"):
            network.revive()
