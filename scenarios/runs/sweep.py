"""A sweep: trials of settings on tuning seeds, the best of them on others, and what it has cost.

    out/sweep.json      what is swept; --resume compares it
    out/trials.jsonl    a line for every trial that has ended, written as it ends
    out/trials.csv      the table of all trials, in order
    out/best.toml       the best settings, for `fedzo run --config`
    out/best/seed-N     runs of the best on the seeds that are reported, on which nothing was tuned
    out/sensitivity.png every setting against the measure

Trials in a group of four do not know of each other (scenarios.runs.proposals), so the table depends
neither on how many processes there are nor on when they were killed.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from fedzo.config import Scalar
from fedzo.errors import ConfigError, RunError
from fedzo.records.run_log import LOGGER
from fedzo.records.storage import storing, write_whole
from fedzo.records.strict_json import strict_json
from fedzo.records.terminal import say
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.experiment_file import sealed_toml
from scenarios.runs.proposals import GROUP, proposed, resolved
from scenarios.runs.spaces import Choices, Range, Space
from scenarios.runs.trial_workers import RunTrials, workers
from scenarios.runs.trials import CURVES, Job, Trial, limits_of, read_trials, written

SWEEP = "sweep.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What to sweep.

    base: arguments of make_experiment but the seed; its settings are those that are given. spaces:
    setting -> what it may be. seeds: those reported; tuning_seeds: those of the trials, none of the
    former; () takes two above them. trials: None for a whole grid. measure: final_value, best_value
    or a metric. prune: whether trials below the median are stopped early. seed: of the proposals.
    """

    base: Mapping[str, Any]
    spaces: Mapping[str, Space]
    seeds: Sequence[int] = (0, 1, 2)
    tuning_seeds: Sequence[int] = ()
    search: str = "auto"
    trials: int | None = None
    measure: str = "final_value"
    prune: bool = True
    seed: int = 0

    @property
    def tuned_on(self) -> Sequence[int]:
        """The tuning seeds."""
        first = max(self.seeds, default=0) + 1000
        return self.tuning_seeds or (first, first + 1)

    def require(self) -> None:
        """Raise ConfigError for what cannot be swept, before anything runs."""
        if not self.spaces:
            raise ConfigError(
                "nothing is to be chosen; give a setting several values, --set"
                " client.mu=0.001,0.01, or a range, --set strategy.local_lr=log:1e-3..1e-1"
            )
        for name, seeds in (("seeds", self.seeds), ("tuning seeds", self.tuned_on)):
            if len({*seeds}) < len(seeds):
                raise ConfigError(f"{name} {list(seeds)} must not repeat; name each once")
        both = sorted({*self.seeds} & {*self.tuned_on})
        if both or not self.seeds:
            raise ConfigError(
                f"seeds {list(self.seeds)} are reported and {list(self.tuned_on)} tuned on, and"
                f" must be some, and differ: {both} are among both; name other --tuning-seeds"
            )
        usual = {name: space.ends[0] for name, space in self.spaces.items()}
        for name, space in self.spaces.items():
            for end in space.ends:
                self.experiment({**usual, name: end}, self.seeds[0])
            if isinstance(space, Range) and space.kind != "int":
                self._require_between(name, space, usual)

    def _require_between(self, name: str, space: Range, usual: Mapping[str, Scalar]) -> None:
        """Raise ConfigError where ends are allowed and what lies between them is not."""
        try:
            self.experiment({**usual, name: space.between}, self.seeds[0])
        except ConfigError as error:
            self.experiment({**usual, name: int(space.high)}, self.seeds[0])
            raise ConfigError(
                f"--set {name}={space.kind}:{space.low:g}..{space.high:g} would draw numbers such"
                f" as {space.between}, which are not allowed ({error}); for whole numbers write"
                f" {name}=int:{space.low:g}..{space.high:g}"
            ) from error

    def experiment(self, settings: Mapping[str, Scalar], seed: int) -> Experiment:
        """Return the experiment with some settings; those that are swept may have no effect."""
        everything = {**self.base.get("settings", {}), **settings}
        excused = {*self.base.get("excused", ()), *self.spaces}
        given = {**self.base, "settings": everything, "seed": seed, "excused": excused}
        return make_experiment(**given)

    def to_json(self) -> dict[str, Any]:
        """Return what is swept; a resumed sweep must share all but the number of trials."""
        kept = asdict(self)
        kept["base"] = {**self.base, "excused": sorted(self.base.get("excused", ()))}
        loaded: dict[str, Any] = json.loads(strict_json(kept))
        return loaded


@dataclass(frozen=True, slots=True)
class Tuned:
    """What trials have found; best: the first of those with the lowest score."""

    plan: SweepPlan
    trials: Sequence[Trial]
    best: Trial

    @property
    def queries(self) -> int:
        """What the trials have cost, of all clients and seeds together."""
        return sum(trial.queries for trial in self.trials)

    @property
    def experiment(self) -> Experiment:
        """The best settings, with the first seed that is reported."""
        return self.plan.experiment(self.best.settings, self.plan.seeds[0])

    def table(self) -> str:
        """Return the trials as CSV."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["trial", "status", self.plan.measure, "queries", *self.plan.spaces])
        for trial in self.trials:
            ended = trial.status == "done" and trial.values
            mean = sum(trial.values) / len(trial.values) if ended else ""
            rows.writerow(
                [trial.index, trial.status, mean, trial.queries, *trial.settings.values()]
            )
        return text.getvalue()


@dataclass(frozen=True, slots=True)
class Effort:
    """How trials are run: on so many processes, with so many torch threads each.

    ray: run them on Ray instead, "local" or the address of a cluster.
    """

    processes: int = 1
    threads: int = 1
    ray: str = ""
    console: Console | None = field(default=None, compare=False)


ALONE = Effort()
"""One process, one thread, in silence."""


def tune(
    plan: SweepPlan, *, out: Path | None = None, resume: bool = False, effort: Effort = ALONE
) -> Tuned:
    """Run the trials, or those that are left, and write what they give.

    Raises ConfigError before anything runs, RunError where no trial has ended.
    """
    plan.require()
    search, count = resolved(plan.search, plan.spaces, plan.trials)
    plan = replace(plan, search=search)
    if out is not None:
        require_place(out, plan, resume)
    with workers(min(effort.processes, count), effort.ray) as run:
        return _tuned(plan, count, run, out, resume, effort)


def _tuned(
    plan: SweepPlan, count: int, run: RunTrials, out: Path | None, resume: bool, effort: Effort
) -> Tuned:
    """Run the trials of a plan by what runs them."""
    file = None if out is None else _opened(out, plan, resume)
    kept = {trial.index: trial for trial in read_trials(file)} if file else {}
    if file:
        with storing(file.parent):
            write_whole(file, "".join(written(trial) + "\n" for trial in kept.values()))
    for first in range(0, count, GROUP):
        before = [kept[index] for index in range(first)]
        jobs = _group(plan, before, min(GROUP, count - first), kept, effort.threads)
        for trial in run(jobs):
            kept[trial.index] = trial
            if file:
                _append(file, trial)
            _tell(effort.console, trial, count, plan.measure)
    trials = [kept[index] for index in range(count)]
    best = min(trials, key=lambda trial: (trial.score, trial.index))
    if not math.isfinite(best.score):
        raise RunError(f"none of {count} trials has ended with a {plan.measure}; {best.status}")
    found = Tuned(plan, trials, best)
    if out:
        with storing(out):
            write_whole(out / "trials.csv", found.table())
            write_whole(out / "best.toml", sealed_toml(found.experiment.to_toml()))
    return found


def _group(
    plan: SweepPlan, before: Sequence[Trial], count: int, kept: Mapping[int, Trial], threads: int
) -> list[Job]:
    """Return the trials of a group that are left."""
    chosen = proposed(plan.search, plan.spaces, before, count, plan.seed)  # type: ignore[arg-type]
    prune = plan.prune and plan.measure in CURVES
    limits = limits_of(before, plan.tuned_on) if prune else {}
    return [
        Job(
            index=index,
            base=plan.base,
            settings=settings,
            seeds=plan.tuned_on,
            measure=plan.measure,
            limits=limits,
            threads=threads,
        )
        for index, settings in enumerate(chosen, start=len(before))
        if index not in kept
    ]


def _opened(out: Path, plan: SweepPlan, resume: bool) -> Path:
    """Return the file of trials; raises ConfigError for a directory of something else."""
    require_place(out, plan, resume)
    definition = out / SWEEP
    if not definition.exists():
        with storing(out):
            out.mkdir(parents=True, exist_ok=True)
            write_whole(definition, strict_json(plan.to_json(), indent=1) + "\n")
    return out / "trials.jsonl"


def require_place(out: Path, plan: SweepPlan, resume: bool) -> None:
    """Raise ConfigError for a directory of something else, or that --resume should be given for."""
    definition, told = out / SWEEP, plan.to_json()
    if resume and not definition.exists():
        raise ConfigError(f"--resume: {out} holds no sweep; leave --resume out, or name its place")
    if definition.exists() and not resume:
        raise ConfigError(f"--out {out} already holds a sweep; add --resume, or name another")
    if not definition.exists():
        return
    before = _read(definition)
    both = {name for name in {**before, **told} if name != "trials"}
    differ = sorted(name for name in both if before.get(name) != told.get(name))
    if differ:
        raise ConfigError(
            f"--out {out} holds another sweep: {', '.join(differ)} differ; resume it as it was"
            " begun (with any --trials), or name another directory"
        )


def begun_sweep(out: Path) -> SweepPlan:
    """Return the plan of the sweep in a directory; raises ConfigError where there is none."""
    definition = out / SWEEP
    if not definition.exists():
        raise ConfigError(
            f"--resume: {out} holds no sweep; name the directory of one that was begun"
        )
    told = _read(definition)
    spaces = {
        name: Choices(tuple(space["values"])) if "values" in space else Range(**space)
        for name, space in told.pop("spaces").items()
    }
    return SweepPlan(**told, spaces=spaces)


def _read(definition: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(definition.read_text())
    except ValueError as error:
        raise ConfigError(f"{definition} is damaged ({error}); restore it") from error
    return read


def _append(file: Path, trial: Trial) -> None:
    with storing(file.parent), file.open("a") as lines:
        lines.write(written(trial) + "\n")


def _tell(console: Console | None, trial: Trial, count: int, measure: str) -> None:
    told = ", ".join(f"{name}={value}" for name, value in trial.settings.items())
    mean = f"{measure} {sum(trial.values) / len(trial.values):.6g}" if trial.values else ""
    ended = mean if trial.status == "done" else trial.status
    line = f"trial {trial.index + 1} of {count}: {told}: {ended}"
    LOGGER.info("%s", line)
    if console is not None:
        say(console, line)
