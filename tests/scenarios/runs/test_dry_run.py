"""A dry run says what a run takes, refuses what a run refuses, and neither asks nor writes."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from worlds import ON_VECTORS

from scenarios.cli import app
from scenarios.runs.dry_run import changed_settings
from scenarios.runs.engines import build_scenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.rehearsal import COUNTED, rehearsed
from scenarios.runs.simulate import simulate

SIZE = ["--rounds", "3", "--set", "scenario.dim=6", "--dry-run"]
OWN = """
from fedzo import CallableObjective

def box(client):
    def ask(x):
        raise RuntimeError("it was asked")
    return CallableObjective(function=ask, dim=7)

def broken(client):
    return client.objective
"""


def fedzo(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def planned(*words: object) -> list[dict[str, Any]]:
    done = fedzo(*words, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)["runs"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("strategy", ["diff2", "diff2_zo"])
def test_records_are_counted_where_their_privacy_needs_it(strategy: str) -> None:
    settings = {"scenario.dataset": "digits", "strategy.unit": "record"}
    made = make_experiment("classification", strategy, num_rounds=3, settings=settings)
    estimate, result = rehearsed(made, build_scenario(made)), simulate(made)
    for each in ("queries", "gradients", "floats_up", "floats_down"):
        assert estimate.a_run[each] == getattr(result.records[-1], each), each


@pytest.mark.parametrize("scheme", ["sign", "int8", "top_k"])
@pytest.mark.parametrize("name", ["fedavg", "fedzo", "scaffold2", "fedbuff"])
def test_what_is_compressed_is_counted_as_it_travels(name: str, scheme: str) -> None:
    settings: dict[str, Any] = {"scenario.dim": 40, "compression.up": scheme}
    if name == "fedbuff":
        settings |= {"fleet.preset": "silo", "fleet.query_s": 0.01}
    else:
        settings |= {"compression.down": scheme}
    made = make_experiment("quadratic", name, num_rounds=3, settings=settings)
    estimate, result = rehearsed(made, build_scenario(made)), simulate(made)
    for each in COUNTED:
        assert estimate.a_run[each] == getattr(result.records[-1], each), each


@pytest.mark.parametrize("name", ["fedavg", "seedzo", "fzoos", "monna", "dp_gd"])
def test_what_clients_count_and_in_which_type_is_counted(name: str) -> None:
    settings: dict[str, Any] = {"scenario.dataset": "digits", "scenario.max_examples": 60}
    if name == "fedavg":
        settings["strategy.weighting"] = "examples"
    made = make_experiment("classification", name, num_rounds=2, num_clients=3, settings=settings)
    estimate, result = rehearsed(made, build_scenario(made)), simulate(made)
    for each in COUNTED:
        assert estimate.a_run[each] == getattr(result.records[-1], each), each


@pytest.mark.parametrize("name", ["mezo", "dp_seed_scalar"])
def test_what_is_sent_of_modules_in_place_is_counted(name: str) -> None:
    settings = {"scenario.task": "digits_cnn", "scenario.examples": 60}
    made = make_experiment("finetune", name, num_rounds=2, num_clients=3, settings=settings)
    estimate, result = rehearsed(made, build_scenario(made)), simulate(made)
    for each in COUNTED:
        assert estimate.a_run[each] == getattr(result.records[-1], each), each


def test_strategies_of_gradients_are_refused_for_a_black_box(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    words = ["compare", f"{tmp_path / 'own.py'}:box", "--strategies", "fedzo,fedavg", "--dry-run"]
    done = fedzo(*words, "--rounds", "2", "--clients", "2")
    assert done.exit_code == 2
    assert "fedavg: the objective is a black box" in " ".join(done.stderr.split())


def test_minibatches_of_no_examples_are_refused_beforehand() -> None:
    done = fedzo("run", "quadratic", *SIZE, "--set", "client.batch_size=7")
    assert done.exit_code == 2
    assert "needs an objective over examples" in done.stderr


@pytest.mark.parametrize("name", [n for n in ON_VECTORS if n != "fzoos"])
def test_a_rehearsal_counts_what_a_run_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenarios.runs.rehearsal.LONGEST_S", 60.0)
    made = make_experiment("quadratic", name, num_rounds=2, settings={"scenario.dim": 4})
    estimate, result = rehearsed(made, build_scenario(made)), simulate(made)
    assert estimate.rounds == 2
    for each in COUNTED:
        assert estimate.a_run[each] == getattr(result.records[-1], each), each


def test_a_rehearsal_on_a_clock_counts_by_the_runs_own_fleet() -> None:
    """Whose answer comes first says who is asked next; losses are not in it."""
    late = {"fleet.speed_spread": 1.5, "strategy.participation": 0.5, "scenario.dim": 4}
    usual = make_experiment("quadratic", "fzoos_async", num_rounds=12, settings=late)
    lossy = make_experiment(
        "quadratic", "fzoos_async", num_rounds=12, settings={**late, "fleet.drop_out": 0.5}
    )
    counted = simulate(usual).queries
    for made in (usual, lossy):
        assert rehearsed(made, build_scenario(made)).a_run["queries"] == counted
    network = ["run", "classification", "--strategy", "fedavg", "--rounds", "2", "--dry-run"]
    done = fedzo(*network, "--set", "fleet.preset=mobile", "--set", "fleet.correlation=0.5")
    assert done.exit_code == 0, done.stderr


def test_a_budget_limits_what_a_run_takes() -> None:
    [free] = planned("run", "quadratic", "--strategy", "seedzo", *SIZE)
    [short] = planned("run", "quadratic", "--strategy", "seedzo", *SIZE, "--query-budget", "25")
    assert free["in_all"]["queries"] > 25
    assert short["in_all"]["queries"] == 25
    assert short["in_all"]["floats_up"] < free["in_all"]["floats_up"]


def test_settings_that_are_not_the_default_are_told() -> None:
    made = make_experiment("quadratic", "fedzo", settings={"client.mu": 0.5, "scenario.dim": 300})
    assert changed_settings(made) == {"client.mu": (0.5, 0.01)}
    done = fedzo("run", "quadratic", "--strategy", "fedzo", *SIZE, "--set", "client.mu=0.5")
    for said in ("client.mu", "0.01", "dim 6", "queries", "nothing was asked or written"):
        assert said in done.stdout


def test_nothing_is_asked_and_nothing_written(tmp_path: Path) -> None:
    own, out = tmp_path / "own.py", tmp_path / "out"
    own.write_text(OWN)
    words = ["--rounds", "2", "--dry-run", "--out", out]
    [found] = planned("run", f"{own}:box", "--strategy", "fedzo", *words)
    assert found["dim"] == 7
    assert found["estimate"]["rounds"] == 2
    both = planned("compare", f"{own}:box", "--strategies", "fedzo,seedzo", *words)
    assert [each["label"] for each in both] == ["fedzo", "seedzo"]
    assert [each["seeds"] for each in both] == [[0, 1, 2]] * 2
    mu = ["--set", "client.mu=0.1,0.2,0.3", "--seeds", "0"]
    trials, best = planned("sweep", f"{own}:box", "--strategy", "fedzo", *mu, *words)
    assert (trials["repeats"], len(trials["seeds"]), best["seeds"]) == (3, 2, [0])
    assert "client.mu" not in trials["changed"]
    tuned = ["--tune", "2", "--set", "client.mu=0.1,0.2"]
    assert len(planned("compare", f"{own}:box", "--strategies", "fedzo", *tuned, *words)) == 2
    lies = ["--attacks", "none,sign_flip", "--set", "byzantine.num_clients=1"]
    [grid] = planned("compare", f"{own}:box", "--strategies", "fedzo", *lies, *words)
    assert (grid["repeats"], grid["seeds"]) == (2, [0, 1, 2])
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix) == ["own.py"]
    assert not out.exists()


def test_what_a_run_refuses_is_refused(tmp_path: Path) -> None:
    own, out = tmp_path / "own.py", tmp_path / "out"
    own.write_text(OWN)
    simulate(
        make_experiment("quadratic", "fedzo", num_rounds=1, settings={"scenario.dim": 6}), out=out
    )
    start = ["run", "quadratic", "--strategy", "fedzo", *SIZE]
    for words, said in {
        (*start, "--out", out): "already holds a run",
        (*start, "--out", out / "experiment.toml" / "x"): "",
        (*start, "--resume"): "--out DIR --resume",
        (*start, "--set", "client.mue=1"): "did you mean client.mu",
        ("run", f"{own}:broken", "--strategy", "fedzo", "--dry-run"): "own.py, line 10",
        ("run", "remote", "--strategy", "fedzo", "--dry-run"): "objectives on nodes",
        ("compare", "quadratic", *SIZE, "--x", "querys", "--out", out / "n"): "axis 'querys'",
        ("sweep", "quadratic", "--strategy", "fedzo", *SIZE): "nothing is to be chosen",
    }.items():
        done = fedzo(*words)
        assert done.exit_code == 2, words
        assert said in done.stderr.replace("\n", " ")
    [more] = planned(*start, "--out", out, "--resume")
    assert more["num_rounds"] == 3


def test_what_is_not_known_beforehand_is_said() -> None:
    done = fedzo("run", "attack", "--strategy", "fedzo", "--dry-run")
    assert done.exit_code == 0
    assert "not known beforehand: the victims are trained" in done.stdout.replace("\n", " ")
