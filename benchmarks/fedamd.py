"""FedAMD and its rivals on Fashion-MNIST, all tuned alike: the tables of docs/results/fedamd.md.

20,000 normalized images over 100 clients, 20 sampled, 10 local steps, batch 32, 200 rounds. The
local learning rate of every method, or the server's where that has Adam, is the best of six (three
for LeNet) on the tuning seed: fewest rounds to a sustained 80 %, then the highest final accuracy.
The reported seeds are run with that one.

    python benchmarks/fedamd.py OUT --split by_label --model mlp

Runs that lie in OUT are not run again, so an interrupted call goes on. `--methods` takes some of
METHODS. The table goes to stdout as Markdown, each cell a mean over seeds, and the curves to
OUT/curves.png.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
from matplotlib.figure import Figure

from fedzo.config import Scalar
from fedzo.records.history import RoundRecord
from fedzo.records.plots import draw_runs, save_figure
from scenarios.runs.experiment import make_experiment
from scenarios.runs.milestones import reached
from scenarios.runs.simulate import simulate

ADAM = {"strategy.server_optimizer": "adam"}
METHODS: dict[str, tuple[str, Mapping[str, Scalar]]] = {
    "fedavg": ("fedavg", {}),
    "fedprox": ("fedprox_exact", {}),
    "scaffold": ("scaffold_exact", {}),
    "fednova": ("fednova", {"strategy.min_steps": 2, "strategy.local_steps": 18}),
    "mifa": ("mifa", {}),
    "fedpage": ("fedpage", {}),
    "bvr_l_sgd": ("bvr_l_sgd", {}),
    "fedamd, tau = 2": ("fedamd", {}),
    "fedamd, p = 0.880": ("fedamd", {"strategy.anchor_probability": "opta"}),
    "fedamd, p = 0.488": ("fedamd", {"strategy.anchor_probability": "optb"}),
    "fedavg + Adam": ("fedavg", {**ADAM, "strategy.local_lr": 0.1}),
    "scaffold + Adam": ("scaffold_exact", {**ADAM, "strategy.local_lr": 0.03}),
    "fedsaga": ("fedsaga", {}),
    "fedsaga, batch 64": ("fedsaga", {"client.batch_size": 64}),
    "fedsaga, 10 local steps": (
        "fedsaga",
        {"client.batch_size": 32, "strategy.local_steps": 10, "strategy.local_lr": 0.03},
    ),
    "fedsaga, no lookahead": ("fedsaga", {"strategy.lookahead": 0.0}),
}
LOCAL = {"mlp": (0.006, 0.01, 0.03, 0.06, 0.1, 0.2), "lenet": (0.01, 0.02, 0.05)}
SERVER = {"mlp": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02), "lenet": (0.001, 0.002, 0.005)}
"""Local rates and, for methods with Adam at the server, server rates that are tried."""
LEVELS = {"mlp": (0.75, 0.80, 0.83), "lenet": (0.65, 0.75, 0.80)}
WINDOW = 5


def run(
    place: Path, method: str, rate: float, seed: int, rounds: int, shared: Mapping[str, Scalar]
) -> list[RoundRecord]:
    """Return the history of one run, from the disk where it is there."""
    strategy, own = METHODS[method]
    batch = 0 if strategy == "fedsaga" else 32
    settings = {**shared, "client.batch_size": batch, **own, rate_of(method): rate}
    experiment = make_experiment(
        "classification",
        strategy,
        num_rounds=rounds,
        num_clients=100,
        seed=seed,
        settings=settings,
    )
    name = f"{method.replace(' ', '')}-{rate}-{seed}"
    try:
        return list(simulate(experiment, out=place / name, resume=True).records)
    except Exception as error:  # a rate too large ends in numbers that are not finite
        print(f"{method} {rate}: {error}", file=sys.stderr)
        return []


def rate_of(method: str) -> str:
    """Return the setting that is tuned."""
    served = method.startswith("fedsaga") or "Adam" in method
    return "strategy.server_lr" if served else "strategy.local_lr"


def tail(records: Sequence[RoundRecord], metric: str, count: int) -> list[float]:
    """Return the last values of a metric."""
    return [r.metrics[metric] for r in records if metric in r.metrics][-count:]


def recent(records: Sequence[RoundRecord]) -> list[float]:
    """Return the accuracies of the last 50 rounds."""
    first = records[-1].round_index - 50
    return [r.metrics["test_accuracy"] for r in records if r.metrics and r.round_index > first]


def merit(records: Sequence[RoundRecord]) -> tuple[float, float]:
    """Return what tuning minimizes: rounds to 80 %, then minus the final accuracy."""
    if not records:
        return math.inf, 0.0
    at = reached(records, "test_accuracy", 0.80)
    return (at.round_index if at else math.inf), -mean(tail(records, "test_accuracy", WINDOW))


def spent(runs: Sequence[Sequence[RoundRecord]], level: float) -> str:
    """Return mean rounds, thousands of examples and millions of floats to a level."""
    found = [reached(records, "test_accuracy", level) for records in runs]
    got = [record for record in found if record is not None]
    if not got:
        return "never"
    costs = (
        f"{mean(r.round_index for r in got):.0f}",
        f"{mean(r.examples for r in got) / 1e3:.0f}k",
        f"{mean(r.axis('floats') for r in got) / 1e6:.0f}M",
    )
    return " / ".join(costs) + ("" if len(got) == len(found) else f" ({len(got)} seeds)")


def row(
    method: str, rate: float, runs: Sequence[Sequence[RoundRecord]], levels: Sequence[float]
) -> str:
    """Return a line of the table."""
    finals = [100 * mean(tail(records, "test_accuracy", WINDOW)) for records in runs]
    wobble = mean(100 * stdev(recent(records)) for records in runs)
    squares = [mean(tail(records, "gradient_norm_sq", WINDOW)) for records in runs]
    least = [min(tail(records, "gradient_norm_sq", 1000)) for records in runs]
    error = f" ± {stdev(finals) / len(finals) ** 0.5:.1f}" if len(finals) > 1 else ""
    cells = [
        method,
        f"{rate:g}",
        *(spent(runs, level) for level in levels),
        f"{mean(finals):.1f}{error}",
        f"{wobble:.2f}",
        f"{mean(squares):.1e} ({mean(least):.1e})",
    ]
    return "| " + " | ".join(cells) + " |"


def draw(path: Path, histories: Mapping[str, Sequence[Sequence[RoundRecord]]]) -> None:
    """Draw the test accuracy by rounds, by examples and by floats."""
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    for place, axis in enumerate(("rounds", "examples", "floats"), start=1):
        axes = figure.add_subplot(1, 3, place)
        draw_runs(axes, histories, axis=axis, quantity="test_accuracy")
        axes.set(yscale="linear", ylim=(0.5, 0.9))
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=("by_label", "dirichlet"), default="by_label")
    parser.add_argument("--model", choices=tuple(LOCAL), default="mlp")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by ;")
    parser.add_argument("--tuning-seed", type=int, default=10)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tune-only", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    shared: dict[str, Scalar] = {
        "scenario.dataset": "idx",
        "scenario.max_examples": 20_000,
        "scenario.normalize": True,
        "scenario.model": given.model,
        "scenario.hidden": 100,
        "scenario.partition": given.split,
        "scenario.alpha": 0.1,
        "scenario.min_size": 2,
        "strategy.participation": 0.2,
        "strategy.evaluate_every": 2 if given.model == "mlp" else 5,
    }
    chosen: dict[str, float] = {}
    tuning = given.out / "tuning"
    for method in given.methods.split(";"):
        merits = {
            rate: merit(run(tuning, method, rate, given.tuning_seed, given.rounds, shared))
            for rate in (SERVER if "server" in rate_of(method) else LOCAL)[given.model]
        }
        chosen[method] = min(merits, key=merits.__getitem__)
        print(json.dumps({method: {str(r): m for r, m in merits.items()}}), file=sys.stderr)
    if given.tune_only:
        return
    heads = ["method", "rate", *(f"{level:.0%}" for level in LEVELS[given.model])]
    heads += ["final %", "wobble", "gradient norm squared (least)"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    drawn: dict[str, Sequence[Sequence[RoundRecord]]] = {}
    for method, rate in chosen.items():
        reported = {**shared, "scenario.report_gradient": True}
        seeds = [int(seed) for seed in given.seeds.split(",")]
        found = [
            run(given.out / "runs", method, rate, seed, given.rounds, reported) for seed in seeds
        ]
        runs = [records for records in found if records]
        if not runs:
            print(f"| {method} | {rate:g} | diverged |", flush=True)
            continue
        print(row(method, rate, runs, LEVELS[given.model]), flush=True)
        drawn[method] = runs
    draw(given.out / "curves.png", drawn)


if __name__ == "__main__":
    main()
