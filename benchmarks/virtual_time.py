"""Seconds to a target by method, fleet and price of a query: what docs/results/time.md shows.

    python benchmarks/virtual_time.py quadratic|network --out FILE.json

Every method is tuned by as many trials on seed 100, by its virtual seconds to the target on the
fleet `mobile` (a query of 50 ms; networks: by examples), and shown on seeds 0 to 4. Synchronous
methods are run once a seed and re-timed for every fleet; asynchronous ones, and those that ask more
clients than they wait for, depend on their fleet and are run on each.
"""

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from scenarios.runs.experiment import make_experiment
from scenarios.runs.retime import retime
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate

TUNING, SHOWN = 100, range(5)
FLEETS = ("mobile", "fedscale", "silo", "nb-iot")
QUERY_S = (0.001, 0.05, 2.0)
STEPS = {"strategy.local_lr": (0.03, 0.1, 0.3), "strategy.local_steps": (3, 10)}
SERVER = {"strategy.server_lr": (0.01, 0.03, 0.1), "client.num_directions": (20, 50)}
QUADRATIC: dict[str, tuple[str, dict[str, Any], dict[str, tuple[Any, ...]]]] = {
    "fedzo": ("fedzo", {}, STEPS),
    "fedzo, asks 13 for 10": ("fedzo", {"strategy.over_selection": 1.3}, STEPS),
    "fedzo_adam": ("fedzo_adam", {}, SERVER),
    "seedzo": ("seedzo", {}, SERVER),
    "fzoos": ("fzoos", {}, {"strategy.num_directions": (5, 10, 15, 20, 35, 50)}),
    "fedbuff_zo, 10 at work, every 5th": ("fedbuff_zo", {"strategy.buffer": 5}, STEPS),
    "fzoos_async, 10 at work": (
        "fzoos_async",
        {},
        {"strategy.num_directions": (5, 10, 20), "strategy.buffer": (3, 5)},
    ),
}
RATES = {"strategy.local_lr": (0.1, 0.3, 1.0), "strategy.local_steps": (5, 20)}
NETWORK: dict[str, tuple[str, dict[str, Any], dict[str, tuple[Any, ...]]]] = {
    "fedavg": ("fedavg", {}, RATES),
    "fedavg, asks 13 for 10": ("fedavg", {"strategy.over_selection": 1.3}, RATES),
    "fedbuff, 10 at work, every 5th": ("fedbuff", {"strategy.buffer": 5}, RATES),
    "fedbuff, 20 at work, every 5th": (
        "fedbuff", {"strategy.buffer": 5, "strategy.participation": 0.4}, RATES,
    ),
}  # fmt: skip
WORLDS: dict[str, dict[str, Any]] = {
    "quadratic": {
        "methods": QUADRATIC, "scenario": "quadratic", "metric": "gap", "level": 0.3, "rounds": 90,
        "settings": {"strategy.participation": 0.2, "scenario.dim": 300},
    },
    "network": {
        "methods": NETWORK, "scenario": "classification", "metric": "test_accuracy", "level": 0.85,
        "rounds": 60, "settings": {"strategy.participation": 0.2, "scenario.dataset": "mnist5k"},
    },
}  # fmt: skip


def seconds(run: RunResult, world: dict[str, Any]) -> float:
    """Return the virtual seconds at which a level was first reached; infinite if never."""
    higher = world["metric"] == "test_accuracy"
    for record in run.records:
        value = record.metrics.get(world["metric"], math.nan)
        if value >= world["level"] if higher else value <= world["level"]:
            return record.axis("virtual_seconds")
    return math.inf


def run(world: dict[str, Any], name: str, more: dict[str, Any], seed: int) -> RunResult:
    strategy, own, _ = world["methods"][name]
    factor = 3 if "buff" in strategy else 1
    made = make_experiment(
        world["scenario"], strategy, num_clients=50, num_rounds=factor * world["rounds"], seed=seed,
        settings={**world["settings"], **own, **more},
    )  # fmt: skip
    return simulate(made)


def fleet_of(world: dict[str, Any], fleet: str, query_s: float) -> dict[str, Any]:
    priced = {"fleet.query_s": query_s} if world["scenario"] == "quadratic" else {}
    return {"fleet.preset": fleet, "fleet.query_s": 0.0, **priced}


def places(world: dict[str, Any]) -> Iterator[tuple[str, float]]:
    yield from itertools.product(FLEETS, QUERY_S if world["scenario"] == "quadratic" else (0.0,))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("world", choices=WORLDS)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    world = WORLDS[chosen.world]
    rows = json.loads(chosen.out.read_text()) if chosen.out.exists() else []
    for name, (strategy, own, grid) in world["methods"].items():
        if any(row["method"] == name for row in rows):
            continue
        depends = "buff" in strategy or "async" in strategy or "strategy.over_selection" in own
        tried = []
        for values in itertools.product(*grid.values()):
            settings = dict(zip(grid, values, strict=True))
            usual = fleet_of(world, "mobile", 0.05)
            found = run(world, name, {**usual, **settings}, TUNING)
            tried.append((seconds(found, world), settings))
        best = min(tried, key=lambda one: one[0])[1]
        taken: dict[str, list[float]] = {}
        counts = []
        for seed in SHOWN:
            whole = None if depends else run(world, name, best, seed)
            for fleet, query_s in places(world):
                if whole is None:
                    found = run(world, name, {**fleet_of(world, fleet, query_s), **best}, seed)
                else:
                    priced = {"query_s": query_s} if query_s else {}
                    found = retime(whole, fleet, **priced)
                taken.setdefault(f"{fleet} {query_s:g}", []).append(seconds(found, world))
                if fleet == "mobile" and query_s in (0.0, 0.05):
                    counts.append(cost(found, world))
        row = {"method": name, "best": best, "tried": tried, "seconds": taken, "counts": counts}
        rows.append(row)
        chosen.out.write_text(json.dumps(rows, indent=1) + "\n")
        told = {place: f"{statistics.median(found):.3g}" for place, found in taken.items()}
        print(name, best, told, flush=True)


def cost(run: RunResult, world: dict[str, Any]) -> dict[str, float]:
    """Return rounds, queries, gradients and bytes until the level; of the whole run if never."""
    until = seconds(run, world)
    at = next((r for r in run.records if r.axis("virtual_seconds") >= until), run.records[-1])
    return {
        "rounds": at.round_index, "queries": at.queries, "gradients": at.gradients,
        "bytes": at.bytes_up + at.bytes_down,
    }  # fmt: skip


if __name__ == "__main__":
    main()
