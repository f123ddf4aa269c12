"""The runs below a directory in a table: what is damaged or foreign is a line of it."""

import json
import os
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fedzo.errors import RunError
from scenarios.cli import app
from scenarios.runs.experiment import make_experiment
from scenarios.runs.listing import list_runs
from scenarios.runs.simulate import simulate


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run that has ended, one that was killed, damaged ones and no runs."""
    root = tmp_path_factory.mktemp("runs")
    made = make_experiment("quadratic", "fedzo", num_rounds=2, settings={"scenario.dim": 3})
    simulate(made, out=root / "deep" / "seed-0")
    copies = [root / name for name in ("begun", "changed", "cut", "killed", "lost", "told")]
    for copy in copies:
        copytree(root / "deep" / "seed-0", copy)
    begun, changed, cut, killed, lost, told = copies
    for path in (begun, killed):
        (path / "result.json").unlink()
    (begun / "history.jsonl").unlink()
    toml = changed / "experiment.toml"
    toml.write_text(toml.read_text().replace("seed = 0", "seed = 1"))
    (cut / "history.jsonl").write_text("no record\n")
    (killed / "lock").write_text("999999999\n")
    (lost / "experiment.toml").unlink()
    (told / "result.json").write_text("[")
    (root / "notes" / "inner").mkdir(parents=True)
    return root


def runs(*words: object) -> Any:
    return CliRunner().invoke(app, ["runs", *map(str, words)])


def test_every_directory_is_a_line_that_says_how_it_stands(below: Path) -> None:
    rows = {row.path.removeprefix(f"{below}/"): row for row in list_runs(below)}
    assert list(rows) == [
        "begun", "changed", "cut", "deep/seed-0", "killed", "lost", "notes", "told",
    ]  # fmt: skip
    done = rows["deep/seed-0"]
    assert (done.life, done.scenario, done.strategy, done.clients, done.seed) == (
        "ended", "quadratic", "fedzo", 5, 0,
    )  # fmt: skip
    told = json.loads((below / "deep" / "seed-0" / "result.json").read_text())
    assert (done.round_index, done.num_rounds) == (2, 2)
    assert (done.best_value, done.queries) == (told["best_value"], told["queries"])
    assert [rows[name].life for name in ("begun", "killed", "notes")] == [
        "killed", "killed", "foreign",
    ]  # fmt: skip
    assert (rows["begun"].round_index, rows["begun"].queries) == (None, 0)
    for name, why in {
        "changed": "was changed or damaged",
        "cut": "line 1 is not a round record",
        "lost": "no experiment.toml",
        "told": "cannot be read",
    }.items():
        assert rows[name].life == "damaged"
        assert why in rows[name].why


def test_the_command_prints_them_all_and_never_a_traceback(below: Path) -> None:
    done = runs(below)
    assert done.exit_code == 0
    assert "quadratic / fedzo" in done.stdout
    assert "1 ended" in done.stdout
    assert "4 damaged" in done.stdout
    assert "1 foreign" in done.stdout
    listed = json.loads(runs(below, "--json").stdout)
    assert listed["runs"] == [row.to_json() for row in list_runs(below)]
    assert "1 ended" in runs(below / "deep" / "seed-0").stdout


def test_a_run_that_goes_on_is_named_with_its_process(tmp_path: Path) -> None:
    seen: list[Any] = []
    made = make_experiment("quadratic", "fedzo", num_rounds=1, settings={"scenario.dim": 3})
    simulate(made, out=tmp_path / "a", callbacks=[lambda _: seen.extend(list_runs(tmp_path))])
    assert (seen[0].life, seen[0].process) == ("running", str(os.getpid()))
    assert (list_runs(tmp_path)[0].life, list_runs(tmp_path)[0].process) == ("ended", None)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    assert "holds no run" in runs(tmp_path).stdout
    done = runs(tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "is no directory; name one" in done.stderr


def test_a_run_that_has_failed_says_so_and_why_until_it_goes_on(tmp_path: Path) -> None:
    settings = {"scenario.dim": 4, "faults.crash": 0.9, "strategy.max_failed_rounds": 0}
    made = make_experiment("quadratic", "fedzo", num_rounds=30, num_clients=2, settings=settings)
    with pytest.raises(RunError, match="crashed") as raised:
        simulate(made, out=tmp_path / "run")
    [row] = list_runs(tmp_path)
    assert row.life == "failed"
    assert "crashed (injected)" in (tmp_path / "run" / "error.txt").read_text()
    x = np.load(tmp_path / "run" / "x.npy")
    assert torch.equal(torch.from_numpy(x), raised.value.result.x)
    told = CliRunner().invoke(app, ["watch", str(tmp_path / "run")])
    assert told.exit_code == 1
    assert "crashed (injected)" in told.output.replace("\n", " ")


def test_a_failure_is_forgotten_when_the_run_goes_on(tmp_path: Path) -> None:
    made = make_experiment("quadratic", "fedzo", num_rounds=2, settings={"scenario.dim": 3})
    simulate(made, out=tmp_path / "run")
    (tmp_path / "run" / "error.txt").write_text("RunError: the power went\n")
    assert [row.life for row in list_runs(tmp_path)] == ["failed"]
    simulate(replace(made, num_rounds=3), out=tmp_path / "run", resume=True)
    assert [row.life for row in list_runs(tmp_path)] == ["ended"]


@pytest.mark.parametrize("command", [["watch", "--once"], ["runs"]])
def test_what_other_commands_have_left_is_named(tmp_path: Path, command: list[str]) -> None:
    left = tmp_path / "left"
    left.mkdir()
    (left / "curve.jsonl").write_text("")
    place = tmp_path if command == ["runs"] else left
    done = CliRunner().invoke(app, [command[0], str(place), *command[1:]])
    assert "it is of `fedzo finetune`" in " ".join(done.output.split())
