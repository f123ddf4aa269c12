"""What FZooS (improved, five clients) takes of a machine: CPU at d = 300, memory at large d.

    python benchmarks/fzoos/scale.py

CPU seconds a round, not wall seconds, so that other programs count little: the median over runs of
14 rounds after one that warms up. Peaks are those of a fresh process each, imports included. Exits
1 when d = 30,000 takes LIMIT or more.
"""

import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch

from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

RUNS, ROUNDS = 7, 14
LARGE: dict[str, tuple[int, int, dict[str, Any]]] = {
    "imports alone": (300, 0, {}),
    "d = 30,000": (30_000, 12, {}),
    "d = 300,000, m = 20, 60 rows": (
        300_000,
        4,
        {"strategy.num_directions": 20, "strategy.max_rows": 60},
    ),
}
"""Dimension, rounds and settings."""
LIMIT = 1e9
"""Bytes of a process at d = 30,000; 0.37e9 of them are imports."""


def cpu_seconds(dim: int, rounds: int, settings: dict[str, Any]) -> float:
    """Return the CPU seconds of a round."""
    experiment = make_experiment(
        "quadratic",
        "fzoos",
        num_clients=5,
        num_rounds=rounds,
        settings={"scenario.dim": dim, **settings},
    )
    begin = time.process_time()
    simulate(experiment)
    return (time.process_time() - begin) / max(1, rounds)


def peak(name: str) -> tuple[float, float]:
    """Return the most bytes that a fresh process held, and the CPU seconds of a round."""
    told = subprocess.run(
        [sys.executable, __file__, name], check=True, capture_output=True, text=True
    )
    size, seconds = told.stdout.split()[-2:]
    return float(size), float(seconds)


def main() -> int:
    """Print the table and return the exit status."""
    if len(sys.argv) > 1:
        seconds = cpu_seconds(*LARGE[sys.argv[1]])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, seconds)
        return 0
    runs = [cpu_seconds(300, ROUNDS, {}) for _ in range(RUNS + 1)][1:]
    print("| run | CPU seconds a round | peak |\n| --- | --- | --- |")
    print(f"| d = 300 | {np.median(runs):.3f} ({min(runs):.3f} to {max(runs):.3f}) | |")
    failed = False
    for name, (dim, *_) in LARGE.items():
        size, seconds = peak(name)
        failed |= dim == 30_000 and size >= LIMIT
        print(f"| {name} | {seconds:.1f} | {size / 1e9:.2f} GB |")
    return int(failed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
