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
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from fedzo.errors import ConfigError, FedzoWarning, RunError
from fedzo.records.run_log import LOGGER
from fedzo.records.storage import storing, write_whole
from fedzo.records.strict_json import strict_json
from fedzo.records.terminal import say
from scenarios.runs.experiment import Experiment
from scenarios.runs.experiment_file import sealed_toml
from scenarios.runs.proposals import GROUP, proposed, resolved
from scenarios.runs.sweep_plan import (
    SWEEP,
    SweepPlan,
    as_begun,
    read_definition,
    require_place,
)
from scenarios.runs.table_remarks import PARTIAL
from scenarios.runs.trial_workers import RunTrials, workers
from scenarios.runs.trials import (
    CURVES,
    Job,
    Trial,
    limits_of,
    read_trials,
    rescored,
    written,
)


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
        name = self.plan.decided_by.name
        rows.writerow(["trial", "status", name, "queries", *self.plan.spaces])
        for trial in self.trials:
            ended = trial.status == "done" and trial.values
            mean = sum(trial.values) / len(trial.values) if ended else ""
            chosen = [trial.settings[name] for name in self.plan.spaces]
            status = "partial" if trial.partial and ended else trial.status
            rows.writerow([trial.index, status, mean, trial.queries, *chosen])
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
        plan = as_begun(out, plan)
    with workers(min(effort.processes, count), effort.ray) as run:
        return _tuned(plan, count, run, out, resume, effort)


def _tuned(
    plan: SweepPlan, count: int, run: RunTrials, out: Path | None, resume: bool, effort: Effort
) -> Tuned:
    """Run the trials of a plan by what runs them."""
    measure = plan.decided_by
    file = None if out is None else _opened(out, plan, resume)
    stored = read_trials(file) if file else []
    kept = {trial.index: rescored(trial, plan.measure) for trial in stored}
    if len(kept) > count:
        raise ConfigError(
            f"--trials {count}: {len(kept)} trials of this sweep have run and are paid for; it can"
            f" be extended but not shortened; resume with --trials {len(kept)} or more"
        )
    if file:
        with storing(file.parent):
            write_whole(file, "".join(written(trial) + "\n" for trial in kept.values()))
    for first in range(0, count, GROUP):
        before = [kept[index] for index in range(first)]
        jobs = _group(plan, before, min(GROUP, count - first), kept, effort.threads)
        for trial in _answered(run, jobs, None if kept else file):
            kept[trial.index] = trial
            if file:
                _append(file, trial)
            _tell(effort.console, trial, count, measure.name)
    trials = [kept[index] for index in range(count)]
    best = min(trials, key=lambda trial: trial.rank)
    if not math.isfinite(best.score):
        raise RunError(f"none of {count} trials has ended with a {measure.name}; {best.status}")
    if best.partial:
        warnings.warn(f"in every trial {measure.name} is {PARTIAL}", FedzoWarning, stacklevel=2)
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
    measure = plan.decided_by
    alone = all(trial.problems == 1 for trial in before)  # of several, the first decides nothing
    prune = plan.prune and alone and measure.name in CURVES and not measure.higher
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
    definition, told = out / SWEEP, plan.to_json()
    if definition.exists():
        before = read_definition(definition).get("trials")
        told["trials"] = max(before or 0, plan.trials) if before and plan.trials else None
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_whole(definition, strict_json(told, indent=1) + "\n")
    return out / "trials.jsonl"


def _answered(run: RunTrials, jobs: Sequence[Job], unused: Path | None) -> Iterator[Trial]:
    """Yield trials; an error of the first leaves nothing of a sweep that cannot be.

    unused: the file of trials where no trial is kept.
    """
    begun = False
    try:
        for trial in run(jobs):
            begun = True
            yield trial
    except ConfigError:
        if unused is not None and not begun:
            for path in (unused, unused.parent / SWEEP):
                path.unlink(missing_ok=True)
        raise


def _append(file: Path, trial: Trial) -> None:
    with storing(file.parent), file.open("a") as lines:
        lines.write(written(trial) + "\n")


def _tell(console: Console | None, trial: Trial, count: int, measure: str) -> None:
    told = ", ".join(f"{name}={value}" for name, value in trial.settings.items())
    mean = f"{measure} {sum(trial.values) / len(trial.values):.6g}" if trial.values else ""
    ended = mean if trial.status == "done" else trial.status
    ended += f" ({PARTIAL})" if trial.partial else ""
    line = f"trial {trial.index + 1} of {count}: {told}: {ended}"
    LOGGER.info("%s", line)
    if console is not None:
        say(console, line)
