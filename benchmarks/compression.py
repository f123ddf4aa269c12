"""Bytes to an accuracy by compressor: what docs/results/compression.md shows.

    python benchmarks/compression.py --out FILE.json [--participation 0.25] [--only METHOD ...]
    python benchmarks/compression.py --draw FILE.json ... --out PICTURE.png

FedAvg on an MLP of 25,450 numbers, mnist5k, 20 clients with labels by Dirichlet(0.5), all of them
or 5 a round. Every row has the same four trials of the local rate on seed 100, chosen by its rounds
to 88 %, and is shown on seeds 0 to 4, for at most 150 rounds.
"""

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedzo.records.history import RoundRecord
from fedzo.records.plots import save_figure
from scenarios.runs.experiment import make_experiment
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate

LEVEL, ROUNDS = 0.88, 150
TUNING, SHOWN = 100, range(5)
RATES = (0.1, 0.2, 0.4, 0.8)
WORLD: dict[str, Any] = {
    "scenario.dataset": "mnist5k", "scenario.hidden": 32, "scenario.partition": "dirichlet",
    "client.batch_size": 32, "strategy.local_steps": 2,
}  # fmt: skip
TITLES = {"all": "all 20 clients a round", "quarter": "5 of 20 clients a round"}
UP = "compression.up"
DOWN = "compression.down"
BLIND = {"compression.error_feedback": False}
METHODS: dict[str, dict[str, Any]] = {
    "whole": {},
    "bfloat16, both ways": {UP: "bfloat16", DOWN: "bfloat16"},
    "int8, both ways": {UP: "int8", DOWN: "int8"},
    "int4, both ways": {UP: "int4", DOWN: "int4"},
    "int2, both ways": {UP: "int2", DOWN: "int2"},
    "sign, both ways": {UP: "sign", DOWN: "sign"},
    "top 1 %, both ways": {UP: "top_k", DOWN: "top_k"},
    "top 1 %, both ways, residual in 4 bits": {
        UP: "top_k", DOWN: "top_k", "compression.residual": "int4",
    },
    "int4 stochastic up, no feedback": {UP: "int4", "compression.rounding": "stochastic", **BLIND},
    "sign up": {UP: "sign"},
    "sign up, no feedback": {UP: "sign", **BLIND},
    "top 1 % up": {UP: "top_k"},
    "top 1 % up, no feedback": {UP: "top_k", **BLIND},
    "top 0.1 %, both ways": {UP: "top_k", DOWN: "top_k", "compression.fraction": 0.001},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(METHODS))
    parser.add_argument("--participation", type=float, default=1.0)
    parser.add_argument("--draw", type=Path, nargs="*", help="draw these results instead")
    chosen = parser.parse_args()
    if chosen.draw:
        draw(chosen.draw, chosen.out)
        return
    rows = json.loads(chosen.out.read_text()) if chosen.out.exists() else []
    for name in chosen.only:
        if any(row["method"] == name for row in rows):
            continue
        settings = {**WORLD, "strategy.participation": chosen.participation, **METHODS[name]}
        tried = [(_reached(_run(settings, rate, TUNING)), rate) for rate in RATES]
        best = min(tried, key=lambda one: one[0]["rounds"])[1]
        found = [_reached(_run(settings, best, seed)) for seed in SHOWN]
        rows.append({"method": name, "local_lr": best, "tried": tried, "found": found})
        chosen.out.write_text(json.dumps(rows, indent=1) + "\n")
        told = {key: statistics.median(one[key] for one in found) for key in found[0]}
        print(name, best, told, flush=True)


def draw(results: Sequence[Path], picture: Path) -> None:
    """Draw megabytes until the accuracy, up and down, a bar each; what never got there is left."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, path in zip(panels, results, strict=True):
        rows = [row for row in json.loads(path.read_text()) if _median(row, "rounds") < math.inf]
        names = [f"{row['method']} ({_median(row, 'rounds'):g} rounds)" for row in rows]
        for place, row in enumerate(rows):
            up, down = _median(row, "up") / 1e6, _median(row, "down") / 1e6
            axes.barh(place, down, color="tab:blue", label="down" if place == 0 else None)
            axes.barh(place, up, left=down, color="tab:orange", label="up" if place == 0 else None)
            axes.text(up + down, place, f" {up + down:.3g}", va="center", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set(xlabel=f"MB until {LEVEL:.0%}", title=TITLES.get(path.stem, path.stem))
        axes.legend(loc="center right")
    save_figure(figure, picture)


def _median(row: dict[str, Any], name: str) -> float:
    return statistics.median(found[name] for found in row["found"])


def _run(settings: dict[str, Any], rate: float, seed: int) -> RunResult:
    experiment = make_experiment(
        "classification",
        "fedavg",
        num_rounds=ROUNDS,
        num_clients=20,
        seed=seed,
        settings={**settings, "strategy.local_lr": rate},
    )
    return simulate(experiment, callbacks=[lambda snapshot: _accuracy(snapshot.record) >= LEVEL])


def _accuracy(record: RoundRecord) -> float:
    return float(record.metrics.get("test_accuracy", 0.0))


def _reached(run: RunResult) -> dict[str, float]:
    """Return rounds and bytes until the level; infinite rounds where it was not reached."""
    last = run.records[-1]
    done = _accuracy(last) >= LEVEL
    rounds = last.round_index if done else float("inf")
    return {"rounds": rounds, "up": last.bytes_up, "down": last.bytes_down}


if __name__ == "__main__":
    main()
