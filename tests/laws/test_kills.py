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
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import scenarios.runs.rundir
from fedzo.records.checkpoint_files import HEADS, OLDER, from_text, part
from fedzo.records.tensor_file import read_facts
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

STRATEGIES = (
    *("fedzo", "fedavg", "fedprox", "scaffold1", "scaffold2", "fednova", "seedzo", "fedzen"),
    *("relizo", "fzoos", "fedamd", "fedpage", "fedsaga", "mifa"),
)
CLUSTER = """
import ray
started = ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
print(started.address_info["gcs_address"], flush=True)
input()
"""
PATIENT = {**os.environ, "RAY_raylet_start_wait_time_s": "200"}  # on a busy machine


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
    """Return what lies there but for the parts of checkpoints, of which none may lie about.

    And but for the head that is kept while the two newest share files, as they may after a kill.
    """
    folder, parts = out / "checkpoint", set(out.rglob("part-*"))
    heads = [folder / name for name in HEADS if (folder / name).exists()]
    used = {part(folder, d) for h in heads for d in from_text(h, read_facts(h))[0].parts}
    assert parts == used
    return {str(path.relative_to(out)) for path in set(out.rglob("*")) - parts - {folder / OLDER}}


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
    monkeypatch.setattr(scenarios.runs.rundir, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr("fedzo.records.checkpoint.SMALL", 0)
    monkeypatch.setattr("fedzo.records.changes._LONG", 1)


@pytest.mark.more
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    survives("scaffold2", tmp_path, 1, random.Random(0))


@pytest.mark.slow
def test_two_hundred_kills_change_nothing(tmp_path: Path) -> None:
    drawn, count = random.Random(1), 0
    for strategy in STRATEGIES:
        count += survives(strategy, tmp_path / strategy, 20, drawn)
    print(f"{count} runs were killed")
    assert count >= 200


@pytest.fixture
def cluster() -> Iterator[str]:
    """Hold a Ray cluster in a process of its own, and give its address."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=PATIENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.communicate("\n")


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_twenty_kills_on_ray_change_nothing(tmp_path: Path, cluster: str) -> None:
    drawn, whole = random.Random(2), tmp_path / "whole"
    settings = {"scenario.dim": 30, "strategy.participation": 0.5, "engine.address": cluster}
    experiment = make_experiment(
        *("quadratic", "scaffold2"), engine="ray", num_rounds=200, num_clients=4, settings=settings
    )

    def run_in(out: Path) -> None:
        simulate(experiment, out=out, resume=(out / "experiment.toml").exists())

    assert os.waitpid(forked(lambda: run_in(whole)), 0)[1] == 0
    for number in range(20):
        out = tmp_path / f"cut-{number}"
        child = forked(lambda out=out: run_in(out))
        wait_for_rounds(out / "history.jsonl", drawn.randrange(1, 150))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert os.waitpid(forked(lambda out=out: run_in(out)), 0)[1] == 0
        assert bits(out) == bits(whole)
        assert files(out) == files(whole)
        print(f"killed {number + 1} times", flush=True)


def wait_for_rounds(history: Path, rounds: int) -> None:
    end = time.monotonic() + 200
    while time.monotonic() < end:
        if history.exists() and history.read_text().count("\n") > rounds:
            return
        time.sleep(0.002)
    raise AssertionError("the run does not come so far")
