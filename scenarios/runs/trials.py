"""One trial of a sweep: some settings, run on every tuning seed, and the line that is kept of it.

A trial is stopped early where its curve, the lowest F after a round on one seed, is above the
median of the trials of earlier groups at the same round and seed (the median rule: Golovin et al.,
"Google Vizier", KDD 2017), after a quarter of the rounds, where there are at least four of those.
"""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from fedzo.config import Scalar
from fedzo.errors import CheckpointError, ConfigError, FedzoWarning, RunError
from fedzo.records.sealed_line import seal, unseal
from fedzo.records.strict_json import spelled, strict_json, unspelled
from scenarios.runs.experiment import make_experiment
from scenarios.runs.measures import measure_of
from scenarios.runs.simulate import simulate
from strategies.core.driver import Snapshot
from strategies.core.standstill import WARNING

_FEWEST = 4
CURVES = ("final_value", "best_value")
Curve = Mapping[int, float]
"""Round -> the lowest F until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a trial has given; nothing in it depends on the machine.

    values: the measure on each tuning seed, of those that ran to the end. queries: all it cost.
    status: "done", "stopped" early, or why it has failed. curves: by seed. partial: whether F at
    the end of a run is of too few clients, so that it compares with no other.
    """

    index: int
    settings: Mapping[str, Scalar]
    status: str
    values: Sequence[float]
    queries: int
    curves: Mapping[str, Curve]
    score: float
    """What is minimized: the mean over seeds, or minus it; inf without an end or a finite mean."""
    partial: bool = False
    problems: int = 1
    """How many problems a run has posed one after the other."""

    @property
    def rank(self) -> tuple[bool, bool, float, int]:
        """What trials are ordered by: those that compare with others come first."""
        return not math.isfinite(self.score), self.partial, self.score, self.index


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A trial to run: arguments of make_experiment, and what to stop early by.

    limits: seed -> round -> the median of earlier trials.
    """

    index: int
    base: Mapping[str, Any]
    settings: Mapping[str, Scalar]
    seeds: Sequence[int]
    measure: str
    limits: Mapping[str, Curve]
    threads: int = 1


def limits_of(before: Sequence[Trial], seeds: Sequence[int]) -> dict[str, Curve]:
    """Return, by seed and round, the median of the curves of earlier trials; none of too few."""
    limits: dict[str, Curve] = {}
    for seed in map(str, seeds):
        curves = [trial.curves[seed] for trial in before if seed in trial.curves]
        rounds = set().union(*curves) if curves else set[int]()
        found = {r: [curve[r] for curve in curves if r in curve] for r in sorted(rounds)}
        limits[seed] = {r: median(v) for r, v in found.items() if len(v) >= _FEWEST}
    return limits


def run_trial(job: Job) -> Trial:
    """Run a trial, a failed one where a run cannot go on; raises ConfigError for bad settings."""
    values: list[float] = []
    curves: dict[str, Curve] = {}
    queries, status, partial, problems = 0, "done", False, 1
    for seed in job.seeds:
        settings = {**job.base.get("settings", {}), **job.settings}
        given = {**job.base, "seed": seed, "settings": settings}
        excused = {*job.base.get("excused", ()), *job.settings}
        try:
            experiment = make_experiment(**{**given, "excused": excused})
        except ConfigError as error:  # values that are allowed, but not together
            status = f"failed: {error}"
            break
        watch = _Watch(job.limits.get(str(seed), {}), experiment.num_rounds)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", WARNING, FedzoWarning)
                result = simulate(experiment, callbacks=[watch], threads=job.threads)
        except RunError as error:
            spent = 0 if error.result is None else error.result.queries
            queries += spent + error.unrecorded
            status = f"failed: {error}"
            break
        queries, problems = queries + result.queries, len(result.solutions)
        curves[str(seed)] = watch.curve
        if watch.stopped:
            status = "stopped"
            break
        told = {**result.metrics, **result.summary()}
        known = {*result.metrics, *CURVES} | {n for n, v in told.items() if _counts(n, v)}
        name = measure_of(job.measure).name
        if name not in known:
            raise ConfigError(f"--measure {name!r} is none of {', '.join(sorted(known))}")
        partial |= result.partial and name == "final_value"
        value = told[name]
        values.append(math.nan if value is None else float(value))
    score = _score(values, job.measure) if status == "done" else math.inf
    return Trial(
        index=job.index,
        settings=job.settings,
        status=status,
        values=values,
        queries=queries,
        curves=curves,
        score=score,
        partial=partial,
        problems=problems,
    )


def _counts(name: str, value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and name != "seed"


def rescored(trial: Trial, measure: str) -> Trial:
    """Return a stored trial with the score of today: releases before took costs for gains."""
    return replace(trial, score=_score(trial.values, measure)) if trial.status == "done" else trial


def _score(values: Sequence[float], measure: str) -> float:
    mean = sum(values) / len(values)
    if not math.isfinite(mean):
        return math.inf
    return -mean if measure_of(measure).higher else mean


class _Watch:
    """Follows F, and stops a run whose lowest so far is above the limit."""

    def __init__(self, limits: Curve, num_rounds: int) -> None:
        self._limits, self._first = limits, max(1, num_rounds // 4)
        self.curve: dict[int, float] = {}
        self.stopped = False

    def __call__(self, snapshot: Snapshot) -> bool:
        record = snapshot.record
        value = record.whole_value
        if value is None or math.isnan(value) or record.problem > 0:
            return False
        lowest = min([value, *list(self.curve.values())[-1:]])
        self.curve[record.round_index] = lowest
        due = record.round_index >= self._first and snapshot.stop is None
        self.stopped = due and lowest > self._limits.get(record.round_index, math.inf)
        return self.stopped


def written(trial: Trial) -> str:
    """Return the line that is kept of a trial."""
    return seal(strict_json({**asdict(trial), "settings": spelled(trial.settings)}))


def read_trials(path: Path) -> list[Trial]:
    """Return the whole lines of a file, in the order of trials; what a kill cut off is left out.

    Raises CheckpointError for a line that was changed or damaged.
    """
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    found = []
    for number, line in enumerate(lines[:-1], start=1):  # the last is empty, or cut off
        try:
            raw = json.loads(unseal(line))
        except ValueError as error:
            raise CheckpointError(
                f"line {number} of {path} is damaged ({error}); restore it, or start again in"
                " another directory"
            ) from error
        found.append(_read(raw))
    return sorted(found, key=lambda trial: trial.index)


def _read(raw: dict[str, Any]) -> Trial:
    curves = {s: {int(r): v for r, v in c.items()} for s, c in raw.pop("curves").items()}
    score = math.inf if raw["score"] is None else raw.pop("score")
    values = [math.nan if v is None else v for v in raw.pop("values")]
    raw["settings"] = unspelled(raw["settings"])
    return Trial(**{**raw, "curves": curves, "score": score, "values": values})
