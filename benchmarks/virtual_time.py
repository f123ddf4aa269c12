"""Seconds to a target by method, fleet and price of a query: what docs/results/time.md shows.

    python benchmarks/virtual_time.py quadratic|network|attack|modules --out FILE.json

Every method is tuned by as many trials on seed 100, by its virtual seconds to the target on the
fleet `mobile` (a query of 50 ms; networks: by examples), and shown on seeds 0 to 4 (modules: 0 to
2). Synchronous methods are run once a seed and re-timed for every fleet; asynchronous ones, and
those that ask more clients than they wait for, depend on their fleet and are run on each. Of an
attack every image counts as a run, and is given up after the rounds.
"""

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedzo.errors import RunError
from fedzo.records.history import RoundRecord
from scenarios.runs.experiment import make_experiment
from scenarios.runs.retime import retime
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate

TUNING = 100
FLEETS = ("mobile", "fedscale", "silo", "nb-iot")
QUERY_S = (0.001, 0.05, 2.0)
USUAL = (("mobile", 0.0), ("mobile", 0.05))
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
WALKS = {"strategy.server_lr": (0.003, 0.006, 0.012), "strategy.local_steps": (1, 3)}
MODULES: dict[str, tuple[str, dict[str, Any], dict[str, tuple[Any, ...]]]] = {
    "seed_scalar": ("seed_scalar", {}, WALKS),
    "seed_scalar, asks 13 for 10": ("seed_scalar", {"strategy.over_selection": 1.3}, WALKS),
    "fedbuff_seed_scalar, 10 at work, every 5th": (
        "fedbuff_seed_scalar", {"strategy.buffer": 5}, WALKS,
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
    "attack": {
        "methods": QUADRATIC, "scenario": "attack", "metric": "success", "level": 1.0, "rounds": 60,
        "settings": {"strategy.participation": 0.2, "scenario.num_images": 5},
    },
    "modules": {
        "methods": MODULES, "scenario": "finetune", "metric": "test_accuracy", "level": 0.4,
        "rounds": 30, "seeds": 3, "fleets": ("mobile", "nb-iot"), "query_s": (0.05,),
        "settings": {"strategy.participation": 0.2, "client.num_directions": 5},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Diverged:
    """A run of one problem that has not come to its end."""

    records: list[RoundRecord]


def reached(record: RoundRecord, world: dict[str, Any]) -> bool:
    value = record.metrics.get(world["metric"], math.nan)
    return bool(value <= world["level"] if world["metric"] == "gap" else value >= world["level"])


def firsts(run: RunResult | Diverged, world: dict[str, Any]) -> list[RoundRecord | None]:
    """Return the record of each problem at which the level was first reached; None if never."""
    problems = sorted({record.problem for record in run.records})
    return [
        next((r for r in run.records if r.problem == k and reached(r, world)), None)
        for k in problems
    ]


def seconds(run: RunResult | Diverged, world: dict[str, Any]) -> list[float]:
    """Return the virtual seconds of each problem; infinite if never."""
    return [math.inf if r is None else r.axis("virtual_seconds") for r in firsts(run, world)]


def _noted(record: RoundRecord, world: dict[str, Any], kept: list[RoundRecord]) -> bool:
    kept.append(record)
    return reached(record, world)


def run(world: dict[str, Any], name: str, more: dict[str, Any], seed: int) -> RunResult | Diverged:
    strategy, own, _ = world["methods"][name]
    factor = 3 if "buff" in strategy else 1
    made = make_experiment(
        world["scenario"], strategy, num_clients=50, num_rounds=factor * world["rounds"], seed=seed,
        settings={**world["settings"], **own, **more},
    )  # fmt: skip
    kept: list[RoundRecord] = []
    try:
        return simulate(made, callbacks=[lambda at: _noted(at.record, world, kept)])
    except RunError as error:  # a rate at which x becomes infinite
        print(name, more, seed, error, flush=True)
        return Diverged(kept)


def fleet_of(world: dict[str, Any], fleet: str, query_s: float) -> dict[str, Any]:
    priced = {"fleet.query_s": query_s} if query_s else {}
    return {"fleet.preset": fleet, "fleet.query_s": 0.0, **priced}


def places(world: dict[str, Any]) -> Iterator[tuple[str, float]]:
    priced = (0.0,) if world["scenario"] == "classification" else QUERY_S
    yield from itertools.product(world.get("fleets", FLEETS), world.get("query_s", priced))


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
            usual = fleet_of(world, *next(p for p in places(world) if p in USUAL))
            found = run(world, name, {**usual, **settings}, TUNING)
            tried.append((seconds(found, world), settings))
        best = min(tried, key=lambda one: rank(one[0]))[1]
        taken: dict[str, list[float]] = {}
        counts = []
        for seed in range(world.get("seeds", 5)):
            whole = None if depends else run(world, name, best, seed)
            for fleet, query_s in places(world):
                if whole is None or isinstance(whole, Diverged):
                    found = run(world, name, {**fleet_of(world, fleet, query_s), **best}, seed)
                else:
                    priced = {"query_s": query_s} if query_s else {}
                    found = retime(whole, fleet, **priced)
                taken.setdefault(f"{fleet} {query_s:g}", []).extend(seconds(found, world))
                if (fleet, query_s) in USUAL:
                    counts += costs(found, world)
        row = {"method": name, "best": best, "tried": tried, "seconds": taken, "counts": counts}
        rows.append(row)
        chosen.out.write_text(json.dumps(rows, indent=1) + "\n")
        told = {place: f"{statistics.median(found):.3g}" for place, found in taken.items()}
        print(name, best, told, flush=True)


def rank(found: list[float]) -> tuple[int, float]:
    """Return what is least for the best settings: more problems solved, then the median."""
    return sum(map(math.isinf, found)), statistics.median(found)


def costs(run: RunResult | Diverged, world: dict[str, Any]) -> list[dict[str, float]]:
    """Return what each problem took until the level; all its rounds if never."""
    last = {record.problem: record for record in run.records}
    whole = [r or last[k] for k, r in enumerate(firsts(run, world))]
    return [
        {
            "rounds": at.round_index, "queries": at.queries, "gradients": at.gradients,
            "bytes": at.bytes_up + at.bytes_down,
        }
        for at in whole
    ]  # fmt: skip


if __name__ == "__main__":
    main()
