"""Real time: clients whose simulators take 10 to 200 ms, waited for or not, on Ray.

    python benchmarks/by_arrival.py OUT.json [SEED ...]

Ten clients, an actor each; client i's function sleeps 10, 10, 20, 20, 30, 30, 50, 50, 100 or 200 ms
a value, and is a quadratic in d = 10 whose targets the seed draws. Methods with their defaults;
those that do not wait step with every fifth answer. Printed: seconds from the first round until F
is within a hundredth of the first gap (F from the targets, asked of nobody), and answers a second.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedzo.objectives.objective import CallableObjective
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from strategies.core.outcome import Snapshot

DIM = 10
PAUSES = (0.01, 0.01, 0.02, 0.02, 0.03, 0.03, 0.05, 0.05, 0.1, 0.2)
BY_ARRIVAL = {"fleet.preset": "none", "strategy.buffer": 5}
ONE_STEP = {"strategy.local_steps": 1}
METHODS: dict[str, tuple[int, dict[str, Any]]] = {
    "fzoos": (30, {}),
    "fzoos_async": (200, BY_ARRIVAL),
    "fedzo": (10, ONE_STEP),
    "fedbuff_zo": (60, {**ONE_STEP, **BY_ARRIVAL}),
}
"""Most rounds, and settings."""
ACTORS = {"engine.num_actors": 10, "engine.num_cpus": 0.1, "engine.cluster_cpus": 2}


def targets(seed: int) -> np.ndarray:
    """Return where each client's function is least [n, d]."""
    return np.random.default_rng(seed).normal(size=(len(PAUSES), DIM))


class Made:
    """Makes a client's objective, in whatever process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, client: int) -> CallableObjective:
        target = targets(self.seed)[client]

        def value(x: np.ndarray) -> float:
            time.sleep(PAUSES[client])
            return float(((x - target) ** 2).sum())

        return CallableObjective(function=value, dim=DIM)


def measure(name: str, seed: int) -> dict[str, float]:
    """Return seconds to a hundredth of the gap, and answers a second."""
    from scenarios.problems.custom import CustomConfig, CustomScenario

    most, own = METHODS[name]
    settings = {"strategy.evaluate_every": 10_000, **own, **ACTORS}
    made = make_experiment(
        "custom", name, engine="ray", num_rounds=most, num_clients=len(PAUSES), seed=seed,
        settings={"scenario.objective": "by_arrival.py:Made", **settings},
    )  # fmt: skip
    scenario = CustomScenario(
        CustomConfig(objective="by_arrival.py:Made"), num_clients=len(PAUSES), seed=seed,
        make_objective=Made(seed),
    )  # fmt: skip
    where = torch.from_numpy(targets(seed))
    begun, first, found = 0.0, 0.0, {"seconds": float("nan"), "answers": 0.0}

    def gap(x: torch.Tensor) -> float:
        return float(((x - where.mean(0)) ** 2).sum())

    def watch(snapshot: Snapshot) -> bool:
        nonlocal begun, first
        now = time.perf_counter()
        if snapshot.record.round_index == 0:
            begun, first = now, gap(snapshot.state.x)
            return False
        found["answers"] += own.get("strategy.buffer", len(PAUSES))
        found["per_s"] = found["answers"] / (now - begun)
        if gap(snapshot.state.x) <= first / 100:
            found["seconds"] = now - begun
            return True
        return False

    simulate(made, scenario=scenario, callbacks=[watch])
    return found


def main(out: Path, seeds: list[int]) -> None:
    """Measure all methods and seeds, and print medians."""
    rows = {name: [measure(name, seed) for seed in seeds] for name in METHODS}
    out.write_text(json.dumps({"seeds": seeds, "rows": rows}, indent=1))
    for name, each in rows.items():
        seconds = [one["seconds"] for one in each]
        speed = statistics.median(one["per_s"] for one in each)
        print(f"{name}: {[round(s, 1) for s in seconds]} s, {speed:.1f} answers/s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0, 1, 2])
