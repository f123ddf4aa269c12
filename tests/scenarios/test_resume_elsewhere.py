"""A run that is killed in mid-exchange goes on to the same bits, on every engine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedzo.records.checkpoint import CURRENT

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]

RUN = [
    *(sys.executable, "-m", "scenarios.cli", "run", "quadratic", "--strategy", "fedzo"),
    *("--seed", "3", "--json", "--set", "scenario.dim=30"),
    *("--set", "client.estimator=residual"),
]


def run(*arguments: str) -> dict[str, object]:
    done = subprocess.run([*RUN, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {k: v for k, v in json.loads(done.stdout).items() if k not in ("wall_s", "out", "stops")}


def kill_in_mid_run(out: Path, *arguments: str) -> int:
    """Start a run, kill it after some rounds without warning, and return how many it had."""
    process = subprocess.Popen(
        [*RUN, *arguments, "--out", str(out)], stdout=subprocess.DEVNULL, start_new_session=True
    )
    history = out / "history.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if history.exists() and history.read_text().count("\n") > 5:
            break
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return history.read_text().count("\n") - 1


@pytest.mark.parametrize("engine", ["ray", "flower"])
@pytest.mark.parametrize("faults", [[], ["--set", "faults.drop=0.2", "--set", "faults.crash=0.1"]])
def test_a_killed_run_resumes_to_the_same_bits(
    tmp_path: Path, engine: str, faults: list[str]
) -> None:
    number = {"ray": 600, "flower": 40}[engine]
    slow = ["--rounds", str(number), "--set", "faults.reorder=0.5", *faults]
    whole = run("--engine", engine, *slow, "--out", str(tmp_path / "whole"))
    rounds = kill_in_mid_run(tmp_path / "cut", "--engine", engine, *slow)
    assert 4 < rounds < number
    resumed = run("--engine", engine, *slow, "--out", str(tmp_path / "cut"), "--resume")
    assert resumed == whole


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = ["--engine", "flower", "--rounds", "10", "--out", str(out)]
    whole = run(*few)
    current = out / "checkpoint" / CURRENT
    current.write_bytes(current.read_bytes()[:100])
    command = [*RUN, *few, "--resume"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert f"{CURRENT} is damaged; the run goes on" in done.stderr
    assert json.loads(done.stdout)["final_value"] == whole["final_value"]
