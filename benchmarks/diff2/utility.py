"""DIFF2 and DP-GD at equal privacy, all tuned alike: the tables of docs/results/diff2.md.

10 clients, epsilon 3 and delta 1e-5 for one replaced record, features clipped at +-4. Every method
tries twelve settings on the tuning seed, the same for all epsilons; the one with the lowest loss
and the one with the smallest gradient are run on the reported seeds.

    python benchmarks/diff2/utility.py OUT --data diamonds --table ../shared/data/diamonds.csv.gz
    python benchmarks/diff2/utility.py OUT --data fashion

loss: F, the mean over the last tenth of the rounds; gradient: |grad F|^2 without clipping, the mean
of the last three of twenty checkpoints. Runs that lie in OUT are not run again. The tables go to
stdout as Markdown.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import torch
from matplotlib.figure import Figure

from fedzo.config import Scalar
from fedzo.errors import FedzoError
from fedzo.randomness import stream
from fedzo.records.plots import save_figure
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

Settings = dict[str, Scalar]
HERE = Path(__file__).parent
LINEAR: Settings = {"strategy.lr_decay": "linear"}
CONSTANT: Settings = {"strategy.lr_decay": "constant"}
PAPER: Settings = {"strategy.calibration": "paper"}
FILTER: Settings = {"strategy.memory": "filter", "strategy.restart_share": 0.9}
STEP = "strategy.server_lr"
C1, C2, T = "strategy.clip_norm", "strategy.difference_clip", "strategy.restart_period"
SLOW = {STEP: (2**-4, 2**-3, 2**-2, 2**-1)}
FAST = {STEP: (2**-2, 2**-1, 1.0, 2.0)}
CLIPS = {C1: (1.0, 2.0, 3.0)}
STAGES = {C1: (1.0, 2.0, 3.0), C2: (1.0, 3.0), T: (6, 20, 60)}
METHODS: dict[str, tuple[str, Settings, dict[str, tuple[Scalar, ...]]]] = {
    "DP-GD, paper's noise": ("dp_gd", {**CONSTANT, **PAPER}, {**CLIPS, **SLOW}),
    "DP-GD": ("dp_gd", CONSTANT, {**CLIPS, **SLOW}),
    "DP-GD, linear decay": ("dp_gd", LINEAR, {**CLIPS, **FAST}),
    "DIFF2, paper's noise": ("diff2", {**CONSTANT, **PAPER}, {**STAGES, STEP: SLOW[STEP][1:]}),
    "DIFF2": ("diff2", CONSTANT, {**STAGES, STEP: SLOW[STEP][1:]}),
    "DIFF2, linear decay": ("diff2", LINEAR, {**STAGES, STEP: FAST[STEP][:3]}),
    "DIFF2 filter, linear decay": (
        "diff2",
        {**LINEAR, **FILTER},
        {C1: (1.0, 2.0, 3.0), C2: (0.3, 1.0), STEP: FAST[STEP][:3]},
    ),
}
TRIES = 12


def tries(method: str) -> list[Settings]:
    """Return twelve points of a method's grid, drawn without replacement where it has more.

    DIFF2 gets the same points with both noises.
    """
    grid = METHODS[method][2]
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    if len(points) <= TRIES:
        return points
    key = "DIFF2, paper's noise" if method == "DIFF2" else method
    drawn = stream(0, "diff2 benchmark", key).choice(len(points), TRIES, replace=False)
    return [points[i] for i in sorted(drawn.tolist())]


def shared(data: str, table: Path) -> tuple[str, Settings]:
    """Return the scenario and its settings."""
    if data == "fashion":
        return "classification", {
            "scenario.dataset": "idx",
            "scenario.max_examples": 10_000,
            "scenario.partition": "iid",
            "scenario.hidden": 16,
            "scenario.activation": "softplus",
            "scenario.report_gradient": True,
        }
    return "regression", {
        "scenario.data": "csv",
        "scenario.path": str(table),
        "scenario.scales": str(HERE / "diamonds.toml"),
        "scenario.target": "price",
        "strategy.noise_source": "stream",
        "strategy.report_shortened": True,
    }


def run(given: argparse.Namespace, method: str, tried: Settings, seed: int) -> dict[str, float]:
    """Return loss, gradient and the like of a run, from the disk where it is there."""
    strategy, own, _ = METHODS[method]
    scenario, common = shared(given.data, given.table)
    label = "-".join([method, *(f"{v:g}" for v in tried.values()), f"{given.epsilon:g}", str(seed)])
    path = given.out / given.data / f"{label.replace(' ', '_')}.json"
    if path.exists():
        found: dict[str, float] = json.loads(path.read_text())
        return found
    every = given.rounds // 20
    settings = {
        **common,
        **own,
        **tried,
        "strategy.epsilon": given.epsilon,
        "strategy.evaluate_every": every,
        "client.max_floats": 1 << 24,
    }
    experiment = make_experiment(
        scenario,
        strategy,
        num_rounds=given.rounds,
        num_clients=10,
        seed=seed,
        settings=settings,
    )
    try:
        records = simulate(experiment).records
        last = [r for r in records if r.value is not None]
        result = {
            "loss": mean(r.value for r in last[-2:] if r.value is not None),
            "gradient": mean(r.metrics["gradient_norm_sq"] for r in last[-3:]),
            "test": last[-1].metrics.get("test_accuracy", last[-1].metrics["test_loss"]),
            "epsilon": last[-1].epsilon or math.nan,
            "shortened": mean(r.shortened for r in last[1:] if r.shortened is not None),
            "seconds": last[-1].wall_s,
        }
    except FedzoError as error:
        print(f"{label}: {error}", file=sys.stderr)
        result = {"loss": math.inf, "gradient": math.inf}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    print(label, result, file=sys.stderr, flush=True)
    return result


def row(aim: str, method: str, tried: Settings, runs: Sequence[Mapping[str, float]]) -> str:
    """Return a line of the table."""

    def cell(name: str, scale: float, digits: int) -> str:
        values = [scale * r[name] for r in runs if name in r]
        if not values or not math.isfinite(sum(values)):
            return "diverged"
        spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{spread}"

    choice = ", ".join(f"{name.split('.')[1]} {value:g}" for name, value in tried.items())
    cells = [aim, method, cell("epsilon", 1, 2), cell("loss", 1e3, 3), cell("gradient", 1e6, 1)]
    return "| " + " | ".join([*cells, cell("test", 1, 4), cell("shortened", 1, 2), choice]) + " |"


def curve(given: argparse.Namespace, chosen: Mapping[str, Settings]) -> None:
    """Draw loss and gradient by epsilon, with the settings that were best at the given epsilon."""
    seeds = [int(seed) for seed in given.seeds.split(",")]
    levels = sorted({given.epsilon, *map(float, given.curve.split(","))})
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = dict(zip(("loss", "gradient"), figure.subplots(1, 2), strict=True))
    for method, tried in chosen.items():
        found = {}
        for epsilon in levels:
            level = argparse.Namespace(**{**vars(given), "epsilon": epsilon})
            found[epsilon] = [run(level, method, tried, seed) for seed in seeds]
        for name, axes in panels.items():
            means = [mean(r[name] for r in runs) for runs in found.values()]
            axes.plot(levels, means, marker="o", label=method)
            print(f"{method}, {name}: {[f'{value:.3g}' for value in means]}", file=sys.stderr)
    for name, axes in panels.items():
        axes.set(xscale="log", yscale="log", xlabel="epsilon", ylabel=name)
    panels["loss"].legend()
    save_figure(figure, given.out / f"{given.data}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", choices=("diamonds", "fashion"), default="diamonds")
    parser.add_argument("--table", type=Path, default=Path("../shared/data/diamonds.csv.gz"))
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by ;")
    parser.add_argument("--tuning-seed", type=int, default=10)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--curve", default="", help="epsilons of a figure, separated by commas")
    given = parser.parse_args()
    torch.set_num_threads(1)
    heads = ["tuned for", "method", "epsilon", "loss x 1e3", "gradient x 1e6", "test"]
    heads += ["shortened", "settings"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    chosen: dict[str, Settings] = {}
    for method in given.methods.split(";"):
        tuning = [(t, run(given, method, t, given.tuning_seed)) for t in tries(method)]
        for aim in ("loss", "gradient"):
            best = min(tuning, key=lambda pair: pair[1][aim])[0]
            chosen.setdefault(method, best)
            runs = [run(given, method, best, int(seed)) for seed in given.seeds.split(",")]
            print(row(aim, method, best, runs), flush=True)
    if given.curve:
        curve(given, chosen)


if __name__ == "__main__":
    main()
