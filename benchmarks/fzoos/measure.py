"""Measure FZooS against its rivals: every method at its defaults and after equal tuning.

    python benchmarks/fzoos/measure.py quadratic-5 noise ...      (all configurations without names)

A configuration is a file for `fedzo compare` in this directory; an ablation is not tuned. Tuning:
nine settings a method, on seeds 100 and 101, which the results do not use; the setting with the
lowest median F at the last number of queries (for an attack, the fewest mean queries) is kept.
Writes tables as Markdown and figures by queries, rounds and bytes to docs/results/fzoos/.
"""

import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedzo.records.history import RoundRecord, read_history
from fedzo.records.plots import plot_runs
from scenarios.runs.compare import compare
from scenarios.runs.comparison import Comparison
from scenarios.runs.config_file import ComparisonPlan, read_comparison

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "docs" / "results" / "fzoos"
TUNING_SEEDS = [100, 101]
LOCAL = {"strategy.local_lr": (0.003, 0.01, 0.03), "client.num_directions": (5, 20, 50)}
SERVER = {"strategy.server_lr": (0.01, 0.03, 0.1), "client.num_directions": (5, 20, 50)}
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "fedzo": LOCAL,
    "fedprox": LOCAL,
    "scaffold1": LOCAL,
    "scaffold2": LOCAL,
    "fedzo_adam": SERVER,
    "seedzo": SERVER,
    "relizo": SERVER,
    "fedzen": {"client.mu": (0.01, 0.1, 1.0), "client.num_directions": (5, 20, 50)},
    "fzoos": {"strategy.initial_step": (0.01, 0.03, 0.1), "strategy.num_directions": (20, 50, 100)},
    "thompson": {"strategy.lengthscale": (1.5, 2.5, 4.0), "strategy.spread": (0.3, 0.5, 1.0)},
    "square": {"strategy.area": (0.05, 0.1, 0.2), "strategy.horizon": (300, 1000, 10000)},
}
MU = {"client.mu": (0.1, 0.5, 2.0)}
PROBES = {"strategy.probe_radius": (0.02, 0.05, 0.1)}
"""What is tuned instead of the number of directions where values are noisy or piecewise flat."""
PROBES_METRIC = {"strategy.probe_radius": (0.05, 0.1, 0.2)}
SLOW = ("fzoos", "fedzen", "relizo")
"""Tuned with at most 10,000 queries, because a run of theirs takes the server seconds."""
ATTACK_LOCAL = {"strategy.local_lr": (0.01, 0.03, 0.1), "strategy.local_steps": (1, 3, 5)}
ATTACK_SERVER = {"strategy.server_lr": (0.03, 0.1, 0.3), "client.num_directions": (2, 5, 10)}


WITHIN = (100, 200, 500, 1000, 5000)
"""Queries within which an attack's success is reported."""


def grid(method: str, plan: ComparisonPlan) -> dict[str, tuple[float, ...]]:
    """Return the two settings that are tuned, three values each."""
    scenario, settings = plan.experiment["scenario"], plan.experiment["settings"]
    if method == "thompson" and settings.get("scenario.waves"):
        return {"strategy.noise": (0.05, 0.1, 0.3), "strategy.spread": (0.3, 0.5, 1.0)}
    if scenario == "attack" and method in ("fedzo", "scaffold2"):
        return ATTACK_LOCAL
    if scenario == "attack" and method in ("fedzo_adam", "seedzo"):
        return ATTACK_SERVER
    if scenario == "metric" and method == "fzoos":
        return {"strategy.initial_step": (0.03, 0.1, 0.3), **PROBES_METRIC}
    if settings.get("scenario.condition", 1.0) > 1 and method == "fzoos":
        return {"strategy.num_directions": (10, 20, 50), "strategy.max_rows": (200, 400, 800)}
    first, *_ = GRIDS[method].items()
    if scenario == "metric" or settings.get("scenario.noise_std"):
        rough = PROBES if method == "fzoos" else MU
        rate = ("strategy.server_lr", (0.3, 0.6, 1.0)) if method == "fedzen" else first
        return {**rough, rate[0]: rate[1]}
    return GRIDS[method]


def trials(method: str, plan: ComparisonPlan) -> Iterator[dict[str, float]]:
    """Yield the nine settings of a method."""
    axes = grid(method, plan)
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def height(result: Comparison, method: str) -> float:
    """Return what tuning minimizes."""
    if result.milestones:
        last = [m for m in result.milestones if m.axis == "queries"][-1]
        return float(np.median(last.values[method]))
    return result.rows[0].means["mean_queries"]


def tuned(plan: ComparisonPlan, method: str) -> dict[str, float]:
    """Return the best of the nine settings on the tuning seeds."""
    experiment = plan.experiment
    attack = experiment["scenario"] == "attack"
    cheap = {"scenario.num_images": 5} if attack else {}
    seeds = TUNING_SEEDS[:1] if attack else TUNING_SEEDS
    found = []
    for trial in trials(method, plan):
        own = {f"{method}:{name}": value for name, value in trial.items()}
        base = {**experiment, "settings": {**_of(experiment, method), **cheap, **own}}
        if attack:
            base["query_budget"] = 6000
        elif method in SLOW:
            base["query_budget"] = min(10000, experiment["query_budget"])
        found.append((height(compare(base, [method], seeds, at=plan.at), method), trial))
    return min(found, key=lambda pair: pair[0])[1]


def _tunable(plan: ComparisonPlan) -> list[str]:
    """Return the methods to tune: in an attack all but FZooS, which keeps its defaults."""
    attack = plan.experiment["scenario"] == "attack"
    return [method for method in plan.strategies if not (attack and method == "fzoos")]


def _of(experiment: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return the settings of a configuration that concern a method."""
    return {
        name: value
        for name, value in experiment["settings"].items()
        if ":" not in name or name.startswith(f"{method}:")
    }


def measure(name: str) -> None:
    """Run one configuration and write its tables and figures."""
    plan = read_comparison(HERE / f"{name}.toml")
    begin = time.perf_counter()
    ablation = name.startswith("ablation")
    wanted = [] if ablation else _tunable(plan)
    chosen = {method: tuned(plan, method) for method in wanted}
    own = {f"{m}:{k}": value for m, trial in chosen.items() for k, value in trial.items()}
    parts = [f"# {name}", "", *_comments(name), ""]
    runs: list[tuple[str, dict[str, float]]] = [("library defaults", {})]
    for title, extra in runs if ablation else [*runs, ("tuned equally", own)]:
        methods = wanted if extra else plan.strategies
        settings = {**plan.experiment["settings"], **extra}
        base = {**plan.experiment, "settings": settings}
        out = Path("runs") / "fzoos" / name / title.split()[0]
        base["settings"] = {
            key: value
            for key, value in base["settings"].items()
            if ":" not in key or key.split(":")[0] in [m.split("=")[0] for m in methods]
        }
        result = compare(base, methods, plan.seeds, at=plan.at, out=out, resume=True)
        histories = _histories(result, out)
        parts += [f"## {title}", "", *table(result, histories), ""]
        if extra:
            parts += ["Settings: " + _sentence(chosen), ""]
        _figures(histories, f"{name}-{title.split()[0]}")
    minutes = (time.perf_counter() - begin) / 60
    seeds = ", ".join(map(str, plan.seeds))
    tuning = "" if ablation else "; tuning on seeds 100 (and 101), nine settings a method"
    parts.append(f"Seeds {seeds}{tuning}.")
    parts.append(f"Took {minutes:.0f} minutes with one thread.")
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.md").write_text("\n".join(parts) + "\n")


Histories = Mapping[str, Sequence[Sequence[RoundRecord]]]


def table(result: Comparison, histories: Histories) -> list[str]:
    """Return Markdown: medians at the milestones, or an attack's queries and success."""
    if not result.milestones:
        within = [f"≤ {count:,}" for count in WITHIN]
        head = ["method", "mean queries", "success rate", *within, "mean rounds", "floats up"]
        rows = [
            [
                row.strategy,
                f"{row.means['mean_queries']:.0f} ± {row.errors['mean_queries']:.0f}",
                f"{row.means['success_rate']:.3f}",
                *(f"{_success(histories[row.strategy], count):.2f}" for count in WITHIN),
                f"{row.means['mean_rounds']:.0f}",
                f"{row.means['floats_up']:,.0f}",
            ]
            for row in result.rows
        ]
        return _markdown(head, rows)
    head = ["method", *(f"{m.limit:,g} {m.axis}" for m in result.milestones), "floats up", "s"]
    rows = []
    for row in result.rows:
        cells = []
        for milestone in result.milestones:
            values = np.asarray(milestone.values[row.strategy])
            error = values.std(ddof=1) / len(values) ** 0.5
            cells.append(f"{np.median(values):.5f} ({values.mean():.4f} ± {error:.1g})")
        up, seconds = row.means["floats_up"], row.means["wall_s"]
        rows.append([row.strategy, *cells, f"{up:,.0f}", f"{seconds:.1f}"])
    return _markdown(head, rows)


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _comments(name: str) -> list[str]:
    text = (HERE / f"{name}.toml").read_text().splitlines()
    return [line.removeprefix("# ") for line in text if line.startswith("#")]


def _sentence(chosen: Mapping[str, Mapping[str, float]]) -> str:
    each = (
        f"{method} " + ", ".join(f"{key.split('.')[1]} {value:g}" for key, value in trial.items())
        for method, trial in chosen.items()
    )
    return "; ".join(each) + "."


def _success(runs: Sequence[Sequence[RoundRecord]], within: int) -> float:
    """Return the share of all images of all runs that were solved within so many queries."""
    hits = [
        any(r.metrics.get("success") and r.queries <= within for r in run if r.problem == problem)
        for run in runs
        for problem in sorted({r.problem for r in run})
    ]
    return float(np.mean(hits))


def _histories(result: Comparison, runs: Path) -> Histories:
    return {
        row.strategy: [read_history(p) for p in sorted((runs / row.strategy).rglob("*.jsonl"))]
        for row in result.rows
    }


def _figures(histories: Histories, stem: str) -> None:
    for axis in ("queries", "rounds", "bytes"):
        plot_runs(OUT / f"{stem}-{axis}.png", histories, axis=axis, title=f"{stem}, by {axis}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for config in sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.toml")):
        measure(config)
        print(json.dumps({"done": config}), flush=True)
