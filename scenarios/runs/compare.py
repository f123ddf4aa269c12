"""Several strategies on the same problems and seeds: tables with standard errors, one figure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fedzo.config import Scalar, field_names, unknown_key
from fedzo.errors import ConfigError, RunError
from fedzo.records.history import AXES
from fedzo.records.plots import plot_runs
from fedzo.records.storage import storing, write_whole
from fedzo.records.strict_json import strict_json
from scenarios.runs.experiment import (
    Experiment,
    config_classes,
    make_experiment,
    variants_using,
)
from scenarios.runs.milestones import Milestone, Target, milestones_of, targets_of
from scenarios.runs.names import STRATEGIES
from scenarios.runs.simulate import RunResult, simulate
from fedzo.records.terminal import say
from strategies.core.uncovered import warn_of_several

MEASURES = (
    "final_value",
    "best_value",
    "rounds",
    "queries",
    "floats_up",
    "floats_down",
    "epsilon",
    "wall_s",
)


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
    milestones: Sequence[Milestone] = ()
    targets: Sequence[Target] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        strategies = {
            row.strategy: {"mean": dict(row.means), "standard_error": dict(row.errors)}
            for row in self.rows
        }
        figure = None if self.figure is None else str(self.figure)
        return {
            "title": self.title,
            "strategies": strategies,
            "milestones": [milestone.to_json() for milestone in self.milestones],
            "targets": [target.to_json() for target in self.targets],
            "runs": self.runs,
            "figure": figure,
        }


def compare(
    base: Mapping[str, Any],
    strategies: Sequence[str],
    seeds: Sequence[int],
    *,
    axis: str = "queries",
    at: Mapping[str, Sequence[float]] | None = None,
    reach: Mapping[str, Sequence[float]] | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    console: Console | None = None,
    tolerant: bool = False,
    threads: int = 1,
) -> Comparison:
    """Run every strategy with every seed; `base` holds the other arguments of make_experiment.

    A strategy is a name, or LABEL=NAME so that one can run with several settings. at: axis ->
    positions at which the lowest F so far is wanted. reach: metric -> levels, for each of which is
    wanted what it took to get there for good. tolerant: a run that cannot go on becomes a failure
    of its label, which has no means then; it is an error otherwise. Runs lie in out/LABEL/seed-N.
    Raises ConfigError before anything runs, or after the first run for metrics it does not have.
    """
    out = None if out is None else Path(out)
    if resume and out is None:
        raise ConfigError("resume needs the directory of the comparison: give --out")
    experiments = planned(base, strategies, seeds)
    _check_axes(axis, at or {})
    results: dict[str, list[RunResult]] = {name: [] for name, _ in experiments}
    failures: dict[str, str] = {}
    for number, (name, experiment) in enumerate(experiments, start=1):
        seed = experiment.seed
        if console and console.is_terminal:
            say(console, f"run {number} of {len(experiments)}: {name}, seed {seed}")
        place = None if out is None else out / name / f"seed-{seed}"
        try:
            results[name].append(_run(experiment, place, resume, threads))
            targets_of({name: results[name][:1]}, reach or {})  # a misspelled metric ends it here
        except RunError as error:
            if not tolerant:
                raise
            failures[name] = str(error)
    ran = [run for runs in results.values() for run in runs]
    warn_of_several(sum(run.experiment.own_data and run.epsilon is not None for run in ran))
    results = {name: runs for name, runs in results.items() if name not in failures}
    first = experiments[0][1]
    title = f"{first.scenario}, {first.num_clients} clients, seeds {', '.join(map(str, seeds))}"
    rows = [_row(name, runs) for name, runs in results.items()]
    summaries = [run.summary() for runs in results.values() for run in runs]
    figure = None if out is None else out / "compare.png"
    comparison = Comparison(
        title,
        rows,
        summaries,
        figure,
        milestones_of(results, at or {}),
        targets_of(results, reach or {}),
        failures,
    )
    if results and figure is not None and out is not None:
        histories = {name: [run.records for run in runs] for name, runs in results.items()}
        asks = all(summary["queries"] for summary in summaries)
        chosen = "rounds" if axis == "queries" and not asks else axis
        plot_runs(figure, histories, axis=chosen, title=title)
        with storing(out):
            write_whole(out / "compare.json", strict_json(comparison.to_json(), indent=1))
    return comparison


def _run(experiment: Experiment, place: Path | None, resume: bool, threads: int) -> RunResult:
    """Run one of a comparison; one that is resumed begins what it had not reached."""
    begun = place is not None and (place / "experiment.toml").exists()
    return simulate(experiment, out=place, resume=resume and begun, threads=threads)


def _labelled(strategies: Sequence[str]) -> dict[str, str]:
    """Return label -> strategy; raises ConfigError for repeated labels and unknown strategies."""
    labels: dict[str, str] = {}
    for text in strategies:
        label, equals, name = text.partition("=")
        name = name if equals else label
        if name not in STRATEGIES:
            raise ConfigError(f"unknown strategy {name!r}; allowed: {', '.join(STRATEGIES)}")
        if label in labels:
            raise ConfigError(
                f"strategies {list(strategies)} must not repeat; LABEL=NAME runs one of them twice"
            )
        if not re.fullmatch(r"\w[\w.+-]*", label):
            raise ConfigError(
                f"label {label!r} of strategy {name!r} must be letters, digits and any of _ . + -,"
                " beginning with one of the former"
            )
        labels[label] = name
    return labels


def _check_axes(axis: str, at: Mapping[str, Sequence[float]]) -> None:
    for name in (axis, *at):
        if name not in AXES:
            raise ConfigError(f"axis {name!r} is unknown; allowed: {', '.join(AXES)}")
        if min(at.get(name, [0])) < 0:
            raise ConfigError(f"positions {list(at[name])} on axis {name!r} must be 0 or more")


def planned(
    base: Mapping[str, Any], strategies: Sequence[str], seeds: Sequence[int]
) -> list[tuple[str, Experiment]]:
    """Return the label and experiment of every run of a comparison; arguments as of `compare`.

    Raises ConfigError where one of them cannot be.
    """
    labels = _labelled(strategies)
    if not labels or not seeds:
        raise ConfigError("a comparison needs at least one strategy and one seed")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds {list(seeds)} must not repeat")
    settings = _settings_by_label(base, labels)
    runs = [(label, name, seed) for label, name in labels.items() for seed in seeds]
    own = [
        {"strategy": name, "seed": seed, "settings": settings[label]} for label, name, seed in runs
    ]
    made = [make_experiment(**{**base, **given}) for given in own]
    return [(label, experiment) for (label, *_), experiment in zip(runs, made, strict=True)]


def _settings_by_label(
    base: Mapping[str, Any], labels: Mapping[str, str]
) -> dict[str, dict[str, Scalar]]:
    """Give each setting to the strategies that have and use it, `label:key` to that one alone.

    Raises ConfigError for a key that no strategy of the comparison has.
    """
    given = base.get("settings", {})
    strategies = list(labels)
    classes = {
        label: config_classes(base["scenario"], name, base.get("engine", "inprocess"))
        for label, name in labels.items()
    }
    valid = {
        name: {f"{section}.{f}" for section, cls in own.items() for f in field_names(cls)}
        for name, own in classes.items()
    }
    chosen: dict[str, dict[str, Scalar]] = {name: {} for name in strategies}
    for key, value in given.items():
        only, colon, rest = key.rpartition(":")
        having = [name for name in strategies if rest in valid[name]]
        using = [n for n in having if _uses(labels[n], rest, _variant(n, classes[n], given))]
        targets = [only] if colon else using or having
        if colon and only not in chosen:
            raise unknown_key(only, strategies)
        if not targets:
            raise unknown_key(rest, set().union(*valid.values()))
        for name in targets:
            chosen[name][rest] = value
    return chosen


def _variant(label: str, classes: Mapping[str, type], given: Mapping[str, Scalar]) -> Scalar | None:
    """Return the variant that a label runs, None for strategies without variants."""
    default = getattr(classes["strategy"](), "variant", None)
    name = "strategy.variant"
    return given.get(f"{label}:{name}", given.get(name, default))


def _uses(strategy: str, key: str, variant: Scalar | None) -> bool:
    variants = variants_using(STRATEGIES[strategy], key)
    return variants is None or variant in variants


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
