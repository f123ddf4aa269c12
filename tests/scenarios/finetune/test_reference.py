"""The script of the reference curves runs, and does nothing twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow  # two processes that import torch
@pytest.mark.source_tree
def test_the_reference_of_a_small_task(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/finetune_reference.py", "digits_cnn"]
    command += ["--epochs", "2", "--lrs", "1e-2", "--seeds", "0", "--out", str(tmp_path)]
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    outputs = [
        subprocess.run(
            command, cwd=ROOT, env=here, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert "first order" in outputs[0]
    assert outputs[1] == ""
    [run] = json.loads((tmp_path / "digits_cnn.json").read_text())["runs"]
    assert [point["example_forwards"] for point in run["curve"]] == [0, 1408, 2816]
    assert run["curve"][-1]["test_accuracy"] > run["curve"][0]["test_accuracy"] + 0.2
    assert 0.5 < run["frozen"]["accuracy"] <= 1
