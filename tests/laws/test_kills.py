"""SIGKILL at any moment: the run goes on to the same bits, and nothing is left lying about."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import scenarios.rundir
from scenarios.experiment import make_experiment
from scenarios.simulate import simulate

STRATEGIES = (
    *("fedzo", "fedavg", "fedprox", "scaffold1", "scaffold2", "fednova", "seedzo", "fedzen"),
    *("relizo", "fzoos", "fedamd", "fedpage", "fedsaga", "mifa"),
)
PATIENT = {**os.environ, "RAY_raylet_start_wait_time_s": "200"}  # on a busy machine
RUN = [
    *(sys.executable, "-m", "scenarios.cli", "run", "quadratic", "--strategy", "scaffold2"),
    *("--seed", "3", "--json", "--set", "scenario.dim=30", "--rounds", "400", "--clients", "4"),
    *("--set", "strategy.participation=0.5", "--engine", "ray"),
]


def forked(work: Callable[[], None]) -> int:
    """Do it in a copy of this process, which has imported everything, and return its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def bits(out: Path) -> list[dict[str, object]]:
    records = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    timed = ("wall_s", "checksum")
    summary = json.loads((out / "result.json").read_text())
    return [
        *({k: v for k, v in record.items() if k not in timed} for record in records),
        {k: v for k, v in summary.items() if k not in ("wall_s", "out", "stops")},
    ]


def files(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*")}


def run(strategy: str, out: Path) -> None:
    experiment = make_experiment(
        "quadratic",
        strategy,
        num_rounds=8,
        num_clients=4,
        seed=3,
        settings={"scenario.dim": 5},
    )
    simulate(experiment, out=out, resume=(out / "experiment.toml").exists())


def killed(work: Callable[[], None], delay_s: float) -> bool:
    child = forked(work)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def survives(strategy: str, folder: Path, kills: int, drawn: random.Random) -> int:
    """Kill runs of a strategy; returns how many were still running."""
    whole, count = folder / "whole", 0
    began = time.monotonic()
    assert os.waitpid(forked(lambda: run(strategy, whole)), 0)[1] == 0
    duration = time.monotonic() - began
    for number in range(kills):
        out = folder / f"cut-{number}"
        count += killed(lambda out=out: run(strategy, out), drawn.uniform(0, duration))
        assert os.waitpid(forked(lambda out=out: run(strategy, out)), 0)[1] == 0
        assert bits(out) == bits(whole)
        assert files(out) == files(whole)
        shutil.rmtree(out)
    return count


@pytest.fixture(autouse=True)
def _every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios.rundir, "CHECKPOINT_EVERY_S", 0.0)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    survives("scaffold2", tmp_path, 1, random.Random(0))


@pytest.mark.slow
def test_two_hundred_kills_change_nothing(tmp_path: Path) -> None:
    drawn, count = random.Random(1), 0
    for strategy in STRATEGIES:
        count += survives(strategy, tmp_path / strategy, 20, drawn)
    print(f"{count} runs were killed")
    assert count >= 200


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_twenty_kills_on_ray_change_nothing(tmp_path: Path) -> None:
    drawn, whole = random.Random(2), tmp_path / "whole"
    subprocess.run([*RUN, "--out", str(whole)], check=True, stdout=subprocess.DEVNULL, env=PATIENT)
    for number in range(20):
        out = tmp_path / f"cut-{number}"
        kill_on_ray(out, rounds=drawn.randrange(1, 300))
        subprocess.run(
            [*RUN, "--out", str(out), "--resume"], check=True, capture_output=True, env=PATIENT
        )
        assert bits(out) == bits(whole)
        assert files(out) == files(whole)


def kill_on_ray(out: Path, *, rounds: int) -> None:
    """Start a run and kill it and its Ray when its history has so many rounds."""
    process = subprocess.Popen(
        [*RUN, "--out", str(out)], stdout=subprocess.DEVNULL, start_new_session=True, env=PATIENT
    )
    history, end = out / "history.jsonl", time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if history.exists() and history.read_text().count("\n") > rounds:
            break
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
