"""Code of the user's that changes where it works, prints, or is ended: runs stay whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fedzo.errors import RunError
from scenarios import federate, make_experiment, simulate
from scenarios.deployed.deploy import _exchange_seconds
from scenarios.runs.stored import load_run

BOX = """
import os
import fedzo

def moves(client):
    def value(x):
        print("loud")
        os.chdir({elsewhere!r})
        return float(((x - client) ** 2).sum())
    return fedzo.CallableObjective(function=value, dim=3)
"""


def test_a_run_stays_in_its_directory_whatever_the_users_code_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(there)
    made = {"scenario": "quadratic", "strategy": "fedzo", "num_clients": 2, "num_rounds": 3}
    settings: dict[str, Any] = {"scenario.dim": 3}
    kept = simulate(make_experiment(**made, seed=7, settings=settings), out="runs")
    monkeypatch.chdir(here)
    found = simulate(
        make_experiment(**made, settings=settings),
        out="runs",
        callbacks=[lambda snapshot: os.chdir(there)],
    )
    assert Path.cwd() == here  # so that the next run of a comparison begins where this one did
    assert torch.equal(load_run(here / "runs").result.x, found.x)
    assert torch.equal(load_run(there / "runs").result.x, kept.x)
    assert str(found.out) == "runs"


def test_a_run_is_kept_where_it_was_asked_for_if_a_module_moves_as_it_is_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "work").mkdir()
    text = BOX.format(elsewhere=str(tmp_path / "work"))
    moves = f"\nos.chdir({str(tmp_path / 'work')!r})\n"
    (tmp_path / "own.py").write_text(text + moves)
    done = _typed(tmp_path, "own.py:moves", "--rounds", "2", "--out", "runs")
    assert done.returncode == 0, done.stderr
    assert len(load_run(tmp_path / "runs").records) == 3
    assert not list((tmp_path / "work").iterdir())


def test_what_users_print_is_not_in_the_json_object(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "own.py").write_text(BOX.format(elsewhere=str(tmp_path / "work")))
    done = _typed(tmp_path, "own.py:moves", "--rounds", "2", "--json", "--out", "runs")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 2
    assert "loud" in done.stderr
    assert load_run(tmp_path / "runs").result.queries == json.loads(done.stdout)["queries"]


def test_a_terminated_run_says_so_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import time, fedzo\n"
        "def slow(client):\n"
        "    def value(x):\n"
        "        time.sleep(0.01)\n"
        "        return float(((x - client) ** 2).sum())\n"
        "    return fedzo.CallableObjective(function=value, dim=3)\n"
    )
    words = ["own.py:slow", "--rounds", "300", "--out", "runs"]
    run = subprocess.Popen(
        _command(words), cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    history = tmp_path / "runs" / "history.jsonl"
    for _ in range(600):
        if history.exists() and history.read_bytes().count(b"\n") > 2:
            break
        time.sleep(0.1)
    run.send_signal(signal.SIGTERM)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted; a run with --out goes on with --resume" in told
    assert load_run(tmp_path / "runs").records


def test_a_reason_is_told_where_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def raises(client: int) -> Any:
        def value(x: Any) -> float:
            monkeypatch.setattr("scenarios.runs.simulate.write_whole", full)
            raise ValueError("the machine is off")

        return _box(value)

    with pytest.raises(RunError, match="the machine is off"):
        federate(raises, num_clients=2, num_rounds=2, out=tmp_path / "run")


def test_a_log_of_messages_that_was_cut_goes_on_whole(tmp_path: Path) -> None:
    settings = {"scenario.dim": 3, "engine.record": True}
    simulate(_experiment(2, settings), out=tmp_path / "run")
    log = tmp_path / "run" / "messages.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-30])
    simulate(_experiment(3, settings), out=tmp_path / "run", resume=True)
    lines = log.read_text().splitlines()
    assert all(json.loads(line) for line in lines)
    assert len(lines) > whole.count(b"\n")
    log.write_bytes(whole[:-30] + whole)  # as an earlier release left it
    assert _exchange_seconds(log) is not None
    assert _exchange_seconds(tmp_path / "none") is None


def _experiment(rounds: int, settings: dict[str, Any]) -> Any:
    return make_experiment(
        "quadratic", "fedzo", num_clients=2, num_rounds=rounds, settings=settings
    )


def _box(function: Any) -> Any:
    from fedzo.objectives.objective import CallableObjective

    return CallableObjective(function=function, dim=3)


def _typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(list(words)), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def _command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "scenarios.cli", "run", *words, "--clients", "2"]
