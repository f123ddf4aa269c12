"""A run seen while it goes on: live on a terminal, plain lines elsewhere, from another process."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedzo.records.history import RoundRecord
from fedzo.records.lock import DirectoryLock
from scenarios.cli import app
from scenarios.cli.live import Display
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from scenarios.runs.watching import Watched

EXPERIMENT = make_experiment(
    "quadratic", "fedzo", num_rounds=3, query_budget=10_000, settings={"scenario.dim": 3}
)


def watch(*words: object) -> Any:
    return CliRunner().invoke(app, ["watch", *(str(word) for word in words)])


def records(count: int) -> list[RoundRecord]:
    return [RoundRecord(round_index=k, value=4.0 - k, queries=10 * k) for k in range(count)]


def test_a_terminal_shows_how_the_run_stands() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    with Display(console, EXPERIMENT) as display:
        display.show(records(3))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for said in ("2/3", "queries", "20", "9,980", "answered"):
        assert said in shown


@pytest.mark.parametrize(("every_s", "lines"), [(0.0, 4), (3600.0, 0)])
def test_elsewhere_there_is_a_plain_line_now_and_then(every_s: float, lines: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=20)
    with Display(console, EXPERIMENT, every_s=every_s) as display:
        for record in records(4):
            display.show([record])
        display.show([])
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("\n") == lines
    assert "\x1b" not in shown
    assert ("quadratic / fedzo / seed 0  round 3/3  F 1  best 1" in shown) == bool(lines)


def test_a_run_that_goes_on_has_ended_or_was_killed_is_told_apart(tmp_path: Path) -> None:
    told: list[Any] = []

    def look(snapshot: Any) -> None:
        if snapshot.record.round_index == 0:
            told.append(watch(tmp_path / "run", "--once"))
            told.append(watch(tmp_path / "run", "--json"))

    result = simulate(EXPERIMENT, out=tmp_path / "run", callbacks=[look])
    assert told[0].stdout.startswith("running: round 0/3")
    assert json.loads(told[1].stdout)["life"] == "running"
    done = watch(tmp_path, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["life"], found["round"], found["value"]) == ("ended", 3, result.final_value)
    assert (found["best_value"], found["queries"]) == (result.best_value, result.queries)
    assert watch(tmp_path / "run").stdout.startswith("ended: round 3/3")
    (tmp_path / "run" / "result.json").unlink()
    done = watch(tmp_path / "run", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["life"] == "killed"
    assert "go on with --resume" in done.stderr.replace("\n", " ")
    (tmp_path / "run" / "error.txt").write_text("RunError: nobody\x1b[2J answered")
    done = watch(tmp_path / "run")
    assert done.exit_code == 1
    assert "nobody\\x1b[2J answered" in done.stderr.replace("\n", "")


def test_what_holds_no_run_ends_in_a_sentence(tmp_path: Path) -> None:
    done = watch(tmp_path)
    assert done.exit_code == 2
    assert "holds no run" in done.stderr
    simulate(EXPERIMENT, out=tmp_path / "deep" / "er")
    done = watch(tmp_path)
    assert done.exit_code == 2
    assert "watch one of the 1 below it" in done.stderr.replace("\n", " ")


CODE = """
import sys, time
from pathlib import Path
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from scenarios.runs.watching import Watched
made = make_experiment("quadratic", "fedzo", num_rounds=40, settings={"scenario.dim": 3})
go = Path(sys.argv[2])
def wait(snapshot):
    while snapshot.record.round_index == 5 and not go.exists():
        time.sleep(0.01)
simulate(made, out=sys.argv[1], callbacks=[wait])
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_another_process_is_followed_until_it_ends(tmp_path: Path, killed: bool) -> None:
    out, go = tmp_path / "run", tmp_path / "go"
    process = subprocess.Popen([sys.executable, "-c", CODE, str(out), str(go)])
    try:
        while not (out / "history.jsonl").exists() or not (out / "history.jsonl").read_text():
            assert process.poll() is None
        words = [sys.executable, "-m", "scenarios.cli", "watch", str(out)]
        watcher = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        if killed:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        else:
            go.touch()
        shown, _ = watcher.communicate(timeout=120)
        assert watcher.returncode == (1 if killed else 0)
        assert shown.startswith("killed: round" if killed else "ended: round 40/40")
    finally:
        process.kill()
        process.wait()


def test_a_deployment_that_goes_on_is_running_before_its_run_is(tmp_path: Path) -> None:
    made = make_experiment("quadratic", "fedzo", num_rounds=1, settings={"scenario.dim": 3})
    simulate(made, out=tmp_path / "run")
    assert Watched(tmp_path).life == "ended"
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    assert Watched(tmp_path).life == "running"
    lock.release()
    assert Watched(tmp_path).life == "ended"
