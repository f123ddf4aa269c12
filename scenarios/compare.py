"""Several strategies on the same problems and seeds: tables with standard errors, one figure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fedzo.config import Scalar, field_names, unknown_key
from fedzo.errors import ConfigError
from fedzo.plots import plot_runs
from scenarios.experiment import Experiment, config_classes, make_experiment
from scenarios.names import STRATEGIES
from scenarios.simulate import RunResult, simulate

MEASURES = ("final_value", "best_value", "rounds", "queries", "floats_up", "floats_down", "wall_s")


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy: mean and standard error of every measure over seeds."""

    strategy: str
    means: Mapping[str, float]
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of a comparison and their summary."""

    title: str
    rows: Sequence[Row]
    runs: Sequence[Mapping[str, Any]]
    figure: Path | None

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        strategies = {
            row.strategy: {"mean": dict(row.means), "standard_error": dict(row.errors)}
            for row in self.rows
        }
        figure = None if self.figure is None else str(self.figure)
        return {"title": self.title, "strategies": strategies, "runs": self.runs, "figure": figure}


def compare(
    base: Mapping[str, Any],
    strategies: Sequence[str],
    seeds: Sequence[int],
    *,
    axis: str = "queries",
    out: Path | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> Comparison:
    """Run every strategy with every seed; `base` holds the other arguments of make_experiment.

    Runs lie in out/STRATEGY/seed-N. Raises ConfigError before anything runs.
    """
    experiments = _experiments(base, strategies, seeds)
    results: dict[str, list[RunResult]] = {name: [] for name in strategies}
    for number, experiment in enumerate(experiments, start=1):
        name, seed = experiment.strategy, experiment.seed
        if console and console.is_terminal:
            console.print(
                f"run {number} of {len(experiments)}: {name}, seed {seed}", highlight=False
            )
        place = None if out is None else out / name / f"seed-{seed}"
        results[name].append(simulate(experiment, out=place, resume=resume))
    first = experiments[0]
    title = f"{first.scenario}, {first.num_clients} clients, seeds {', '.join(map(str, seeds))}"
    rows = [_row(name, runs) for name, runs in results.items()]
    summaries = [run.summary() for runs in results.values() for run in runs]
    figure = None if out is None else out / "compare.png"
    comparison = Comparison(title, rows, summaries, figure)
    if figure is not None and out is not None:
        histories = {name: [run.records for run in runs] for name, runs in results.items()}
        asks = all(summary["queries"] for summary in summaries)
        chosen = "rounds" if axis == "queries" and not asks else axis
        plot_runs(figure, histories, axis=chosen, title=title)
        (out / "compare.json").write_text(json.dumps(comparison.to_json(), indent=1))
    return comparison


def _experiments(
    base: Mapping[str, Any], strategies: Sequence[str], seeds: Sequence[int]
) -> list[Experiment]:
    if not strategies or not seeds:
        raise ConfigError("a comparison needs at least one strategy and one seed")
    if len(set(strategies)) < len(strategies) or len(set(seeds)) < len(seeds):
        raise ConfigError(f"strategies {list(strategies)} and seeds {list(seeds)} must not repeat")
    settings = _settings_by_strategy(base, strategies)
    return [
        make_experiment(**{**base, "strategy": name, "seed": seed, "settings": settings[name]})
        for name in strategies
        for seed in seeds
    ]


def _settings_by_strategy(
    base: Mapping[str, Any], strategies: Sequence[str]
) -> dict[str, dict[str, Scalar]]:
    """Give each setting to the strategies that have it, `name:key` to that strategy alone.

    Raises ConfigError for a key that no strategy of the comparison has.
    """
    for name in strategies:
        if name not in STRATEGIES:
            raise ConfigError(f"unknown strategy {name!r}; allowed: {', '.join(STRATEGIES)}")
    classes = {
        name: config_classes(base["scenario"], name, base.get("engine", "inprocess"))
        for name in strategies
    }
    valid = {
        name: {f"{section}.{f}" for section, cls in own.items() for f in field_names(cls)}
        for name, own in classes.items()
    }
    chosen: dict[str, dict[str, Scalar]] = {name: {} for name in strategies}
    for key, value in base.get("settings", {}).items():
        only, colon, rest = key.rpartition(":")
        targets = [only] if colon else [name for name in strategies if rest in valid[name]]
        if colon and only not in chosen:
            raise unknown_key(only, strategies)
        if not targets:
            raise unknown_key(rest, set().union(*valid.values()))
        for name in targets:
            chosen[name][rest] = value
    return chosen


def _row(name: str, runs: Sequence[RunResult]) -> Row:
    summaries = [{**run.summary(), **run.metrics} for run in runs]
    measures = [*MEASURES, *runs[0].metrics]
    columns = {
        m: np.asarray([s[m] for s in summaries], dtype=np.float64)
        for m in measures
        if all(s[m] is not None for s in summaries)
    }
    errors = {
        m: float(c.std(ddof=1) / len(c) ** 0.5) if len(c) > 1 else 0.0 for m, c in columns.items()
    }
    return Row(name, {m: float(c.mean()) for m, c in columns.items()}, errors)
