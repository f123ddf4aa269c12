"""The command line as people and scripts use it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedzo.catalog import METHOD_LINES
from scenarios.cli.app import app
from scenarios.cli.lazy import COMMANDS, imported
from scenarios.runs.stored import by_label, load_runs

QUADRATIC = [
    *("run", "quadratic", "--strategy", "fedzo", "--rounds", "6"),
    *("--set", "scenario.dim=20", "--set", "strategy.local_steps=2"),
]


@dataclass(frozen=True)
class Done:
    """What a command left: exit status and both streams."""

    returncode: int
    stdout: str
    stderr: str


def fedzo(*arguments: str) -> Done:
    """Run the command line in this process."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def fedzo_process(*arguments: str) -> Done:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "scenarios.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def run_json(*arguments: str) -> dict[str, object]:
    done = fedzo(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    summary: dict[str, object] = json.loads(done.stdout)
    return summary


def test_list_names_everything_and_every_setting() -> None:
    names = fedzo("list").stdout
    assert all(word in names for word in ("quadratic", "attack", "custom", "fedzo", "inprocess"))
    settings = fedzo("list", "quadratic", "--strategy", "fedzo").stdout
    assert "client.num_directions" in settings
    assert "scenario.heterogeneity" in settings


def test_the_run_of_the_readme_reaches_the_optimum_and_counts_its_queries() -> None:
    summary = run_json(
        "run", "quadratic", "--strategy", "fedzo", "--rounds", "50", "--clients", "5",
        "--seed", "0", "--set", "scenario.dim=300", "--set", "scenario.heterogeneity=0.5",
        "--set", "strategy.local_steps=10", "--set", "client.num_directions=20",
        "--set", "client.mu=0.01",
    )  # fmt: skip
    assert -0.024667 < float(summary["final_value"]) < 0  # type: ignore[arg-type]
    assert summary["queries"] == 5 * 50 * 10 * 21
    assert summary["floats_up"] == summary["floats_down"] == 5 * 50 * 300
    expected = {
        "scenario", "strategy", "engine", "seed", "rounds", "initial_value", "final_value",
        "best_value", "metrics", "queries", "floats_up", "floats_down", "wall_s", "epsilon", "out",
    }  # fmt: skip
    assert expected <= summary.keys()
    assert summary["epsilon"] is None
    assert summary["out"] is None


def test_same_seed_same_bits_other_seed_others() -> None:
    one, again, other = (
        run_json(*QUADRATIC, "--seed", seed)["final_value"] for seed in ("0", "0", "1")
    )
    assert one == again
    assert one != other


@pytest.mark.more
def test_json_is_alone_on_stdout_and_progress_stays_away_from_pipes() -> None:
    done = fedzo_process(*QUADRATIC, "--json")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    spoken = fedzo(*QUADRATIC)
    assert "queries" in spoken.stdout
    assert spoken.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "client.num_direction=3"], "did you mean client.num_directions?"),
        (["--set", "client.num_directions=0"], "num_directions=0 must be at least 1"),
        (["--set", "client.mu"], "not key=value"),
        (["--query-budget", "2"], "query_budget=2 must be at least 5"),
        (["--engine", "cluster"], "unknown engine 'cluster'"),
        (["--resume"], "--out DIR --resume"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments: list[str], message: str) -> None:
    done = fedzo(*QUADRATIC, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_missing_name_is_asked_for() -> None:
    assert "no scenario is given" in fedzo("run", "--strategy", "fedzo").stderr


def test_a_failed_run_has_status_1(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "from fedzo.objectives.objective import CallableObjective\n"
        "def own(client):\n"
        "    return CallableObjective(function=lambda x: float('nan'), dim=2)\n"
    )
    done = fedzo("run", "custom", "--strategy", "fedzo", "--set", f"scenario.objective={path}:own")
    assert done.returncode == 1
    assert "non-finite value (nan)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("figures")
def test_a_run_leaves_what_it_promises_and_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = run_json(*QUADRATIC, "--out", str(out))
    assert summary["out"] == str(out)
    for name in ("experiment.toml", "history.jsonl", "checkpoint", "figure.png"):
        assert (out / name).exists()
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [record["round_index"] for record in history] == list(range(7))
    assert history[-1]["queries"] == summary["queries"]
    assert history[-1]["value"] == summary["final_value"]
    again = fedzo(*QUADRATIC, "--out", str(out))
    assert again.returncode == 2
    assert "already holds a run" in again.stderr
    mixed = fedzo(*QUADRATIC, "--out", str(out), "--resume", "--seed", "5")
    assert mixed.returncode == 2
    assert "seed = 0, now seed = 5" in mixed.stderr
    rerun = run_json("run", "--config", str(out / "experiment.toml"))
    assert rerun["final_value"] == summary["final_value"]
    done = run_json(*QUADRATIC, "--out", str(out), "--resume")
    assert done["final_value"] == summary["final_value"]


SLOW_OBJECTIVE = """
import time
from fedzo.objectives.objective import CallableObjective


def own(client):
    def value(x):
        time.sleep(4e-4)
        return float(((x - 0.1 * client) ** 2).sum())

    return CallableObjective(function=value, dim=6, lower=-1.0, upper=1.0)
"""


@pytest.mark.slow  # beside tests/laws/test_kills.py, which kills what has no need to import first
@pytest.mark.parametrize(("estimator", "lines"), [("forward", 3), ("residual", 9)])
def test_killed_in_mid_run_and_resumed_it_ends_at_the_same_bits(
    tmp_path: Path, estimator: str, lines: int
) -> None:
    (tmp_path / "own.py").write_text(SLOW_OBJECTIVE)
    arguments = [
        "run", "custom", "--strategy", "fedzo", "--rounds", "30", "--clients", "3",
        "--set", f"scenario.objective={tmp_path / 'own.py'}:own",
        "--set", "client.num_directions=6", "--set", "strategy.participation=0.7",
        "--set", f"client.estimator={estimator}", "--set", "strategy.server_optimizer=adam",
        "--set", "strategy.server_lr=0.05",
    ]  # fmt: skip
    whole = run_json(*arguments)
    out = tmp_path / "run"
    history = out / "history.jsonl"
    command = [sys.executable, "-m", "scenarios.cli", *arguments, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if history.exists() and len(history.read_text().splitlines()) >= lines:
                break
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert lines <= len(history.read_text().splitlines()) < 31, "it was killed in mid-run"
    resumed = run_json(*arguments, "--out", str(out), "--resume")
    for name in ("final_value", "best_value", "queries", "floats_up", "rounds"):
        assert resumed[name] == whole[name], name
    records = [json.loads(line) for line in history.read_text().splitlines()]
    assert [record["round_index"] for record in records] == list(range(31))


def test_a_failed_set_up_leaves_nothing_and_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    bad = ["run", "classification", "--strategy", "fedavg", "--set", "scenario.dataset=idx"]
    done = fedzo(*bad, "--set", f"scenario.data_dir={tmp_path}", "--out", str(out))
    assert done.returncode == 2
    assert not out.exists()
    (tmp_path / "notes.txt").write_text("mine")
    done = fedzo(*QUADRATIC, "--out", str(tmp_path))
    assert done.returncode == 2
    assert "holds no run" in done.stderr
    done = fedzo(*QUADRATIC, "--out", str(tmp_path / "notes.txt" / "sub"))
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_a_history_shorter_than_its_checkpoint_is_reported(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_json(*QUADRATIC, "--out", str(out))
    lines = (out / "history.jsonl").read_text().splitlines(keepends=True)
    (out / "history.jsonl").write_text("".join(lines[:2]))
    done = fedzo(*QUADRATIC, "--out", str(out), "--resume")
    assert done.returncode == 1
    assert "holds 2 records and the checkpoint speaks of 7" in done.stderr


def test_same_names_in_different_places_stay_two_lines(tmp_path: Path) -> None:
    for place in ("one", "two"):
        run_json(*QUADRATIC, "--out", str(tmp_path / place / "fedzo"))
    assert len(by_label(load_runs(tmp_path))) == 2


def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "run"
    whole = run_json(*QUADRATIC, "--out", str(out))
    current, previous = (out / "checkpoint" / f"{n}.safetensors" for n in ("current", "previous"))
    current.write_bytes(b"torn")
    done = fedzo(*QUADRATIC, "--out", str(out), "--resume", "--json")
    assert done.returncode == 0
    assert f"{current} is damaged; the run goes on from" in done.stderr
    assert json.loads(done.stdout)["final_value"] == whole["final_value"]
    current.write_bytes(b"torn")
    previous.write_bytes(b"torn")
    done = fedzo(*QUADRATIC, "--out", str(out), "--resume")
    assert done.returncode == 1
    assert "previous.safetensors cannot be read" in done.stderr


def test_compare_and_plot(tmp_path: Path) -> None:
    out = tmp_path / "both"
    done = fedzo(
        "compare", "quadratic", "--strategies", "fedzo,fedavg", "--seeds", "0,1",
        "--rounds", "4", "--set", "scenario.dim=20", "--set", "fedzo:client.num_directions=4",
        "--set", "client.optimizer=sgd", "--out", str(out), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [(r["strategy"], r["seed"]) for r in summary["runs"]] == [
        ("fedzo", 0), ("fedzo", 1), ("fedavg", 0), ("fedavg", 1),
    ]  # fmt: skip
    assert summary["runs"][0]["queries"] == 5 * 4 * 10 * 5
    assert set(summary["strategies"]) == {"fedzo", "fedavg"}
    assert (out / "compare.png").exists()
    assert json.loads((out / "compare.json").read_text()) == summary
    assert (out / "fedavg" / "seed-1" / "history.jsonl").exists()
    for axis in ("queries", "bytes"):
        drawn = fedzo("plot", str(out), "--x", axis)
        assert drawn.returncode == 0, drawn.stderr
        assert (out / f"plot-{axis}.png").read_bytes().startswith(b"\x89PNG")
    spoken = fedzo("compare", "quadratic", "--strategies", "fedzo", "--seeds", "0", "--rounds", "1")
    assert "one seed, so there is no error" in spoken.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategies", "fedzo,fedsgd"], "unknown strategy 'fedsgd'"),
        (["--strategies", ""], "at least one strategy"),
        (["--seeds", "0,0"], "must not repeat"),
        (["--seeds", "zero"], "whole numbers"),
        (["--set", "client.nothing=1"], "unknown setting client.nothing"),
        (["--set", "fedavg:client.mu=1"], "unknown strategy or label fedavg"),
    ],
)
def test_bad_comparisons_are_refused(arguments: list[str], message: str) -> None:
    done = fedzo("compare", "quadratic", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_plotting_nothing_is_refused(tmp_path: Path) -> None:
    done = fedzo("plot", str(tmp_path))
    assert done.returncode == 2
    assert "holds no history.jsonl" in done.stderr
    missing = fedzo("plot", str(tmp_path / "nowhere"))
    assert missing.returncode == 2


def test_help_teaches() -> None:
    for command in ([], ["run"], ["compare"], ["plot"], ["list"]):
        done = fedzo(*command, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout


def test_settings_of_methods_are_listed() -> None:
    for name in METHOD_LINES:
        done = CliRunner().invoke(app, ["list", name])
        assert done.exit_code == 0, done.stderr
        assert f"method {name}" in done.stdout
    told = CliRunner().invoke(app, ["list", "lozo"]).stdout
    assert "rank" in told
    assert "at least 1" in told
    assert "a strategy too" in CliRunner().invoke(app, ["list", "mezo"]).stdout
    done = CliRunner().invoke(app, ["list", "lozo", "--engine", "ray"])
    assert (done.exit_code, "no effect with lozo" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_and_option_is_explained(name: str) -> None:
    for each in imported(name).params:
        assert getattr(each, "help", None), (name, each.name)


def test_a_run_that_ends_worse_than_it_began_says_so() -> None:
    words = ["run", "quadratic", "--set", "scenario.dim=5", "--rounds", "2"]
    assert "F has risen from" in fedzo(*words, "--set", "strategy.local_lr=50").stdout
    assert "risen" not in fedzo(*words).stdout


def test_noise_that_is_known_is_no_rise(tmp_path: Path) -> None:
    """F of clients who answer with noise goes up and down where x stands still."""
    (tmp_path / "flat.py").write_text(
        "import fedzo\n\n\ndef make(client):\n"
        "    return fedzo.TorchObjective(function=lambda x: 5 + 0 * x.sum(-1), dim=3)\n"
    )
    words = ["run", "custom", "--set", f"scenario.objective={tmp_path / 'flat.py'}:make"]
    words += ["--clients", "3", "--rounds", "2", "--set", "strategy.local_lr=0.00001"]
    told = [
        fedzo(*words, "--set", "scenario.noise_std=3", "--seed", str(seed)).stdout
        for seed in range(6)
    ]
    assert not any("risen" in text for text in told)
