"""What would be run, checked as a run checks it: nothing is asked and nothing written."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedzo.config import Scalar, default_values
from fedzo.errors import ConfigError
from fedzo.failure import failure_of
from fedzo.objectives.looped_cohort import BLACK_BOX
from fedzo.objectives.objective import CallableObjective
from scenarios.problems.scenario import Scenario
from scenarios.runs.compare import planned
from scenarios.runs.engines import build_scenario, open_engine
from scenarios.runs.experiment import Experiment, config_classes
from scenarios.runs.extension import EXPERIMENT
from scenarios.runs.grid import GridShape, grid_runs
from scenarios.runs.proposals import resolved
from scenarios.runs.rehearsal import Estimate, rehearsed
from scenarios.runs.rundir import RunDirectory, require_begun
from scenarios.runs.steps import posed
from scenarios.runs.sweep_plan import SweepPlan
from scenarios.runs.sweep_plan import require_place as sweep_place

_MOST_MADE = 100
"""Clients whose objectives are made, at most, to see whether they can be."""


@dataclass(frozen=True, slots=True)
class Planned:
    """Runs that differ in their seed alone.

    repeats: how often each is run, where several settings are tried. changed: setting -> its value
    and its default, of those that differ. estimate: of one
    run; None where `unknown` says why.
    """

    label: str
    experiment: Experiment
    seeds: Sequence[int]
    repeats: int
    changed: Mapping[str, tuple[Scalar, Scalar | None]]
    dim: int | None
    estimate: Estimate | None
    unknown: str = ""

    @property
    def runs(self) -> int:
        """How many runs these are."""
        return len(self.seeds) * self.repeats

    def totals(self, runs: int) -> dict[str, int]:
        """Return what so many of these runs take, by COUNTED; nothing where that is unknown."""
        if self.estimate is None:
            return {}
        one = self.estimate.within(self.experiment.query_budget)
        return {name: round(runs * number) for name, number in one.items()}

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        made = self.experiment
        heads = ("scenario", "strategy", "engine", "num_rounds", "num_clients", "query_budget")
        return {
            "label": self.label,
            **{name: getattr(made, name) for name in heads},
            "seeds": list(self.seeds),
            "repeats": self.repeats,
            "dim": self.dim,
            "changed": {name: value for name, (value, _) in self.changed.items()},
            "estimate": None if self.estimate is None else asdict(self.estimate),
            "in_all": self.totals(self.runs),
        }


def plan(
    label: str,
    experiments: Sequence[Experiment],
    *,
    repeats: int = 1,
    chosen: Collection[str] = (),
) -> Planned:
    """Build what runs that differ in their seed share, and rehearse it.

    chosen: settings that vary over the repeats, of which nothing is told. Raises ConfigError for
    what a run would refuse.
    """
    first = experiments[0]
    seeds = [each.seed for each in experiments]
    changed = {n: told for n, told in changed_settings(first).items() if n not in chosen}
    if "scenario.cache_dir" in first.settings:
        why = "the victims are trained, or loaded, first"
        return Planned(label, first, seeds, repeats, changed, None, None, why)
    scenario = build_scenario(first)
    _require_clients(first, scenario)
    dim = posed(scenario, 0, first).initial_x.numel()
    try:
        found, why = rehearsed(first, scenario), ""
    except ConfigError:
        raise
    except Exception as error:  # a strategy of the user's may raise anything at random answers
        found, why = None, f"the rehearsal ended in {failure_of(error)}"
    if found is not None and found.a_run["gradients"] and _is_black_box(scenario):
        raise ConfigError(f"{label}: {BLACK_BOX}")
    return Planned(label, first, seeds, repeats, changed, dim, found, why)


def _is_black_box(scenario: Scenario) -> bool:
    """Return whether the first client is known to have no gradient."""
    objectives = getattr(scenario.cohort([0], 0), "objectives", ())
    return any(isinstance(each, CallableObjective) for each in objectives)


def plan_comparison(
    base: Mapping[str, Any],
    strategies: Sequence[str],
    seeds: Sequence[int],
    *,
    out: Path | None,
    resume: bool,
) -> list[Planned]:
    """Plan what `compare` would run, a plan for each label; raises ConfigError as it does."""
    found: dict[str, list[Experiment]] = {}
    for label, experiment in planned(base, strategies, seeds):
        place = None if out is None else out / label / f"seed-{experiment.seed}"
        begun = place is not None and (place / EXPERIMENT).exists()
        require_place(place, resume and begun, experiment)
        found.setdefault(label, []).append(experiment)
    return [plan(label, experiments) for label, experiments in found.items()]


def plan_grid(
    base: Mapping[str, Any], strategies: Sequence[str], seeds: Sequence[int], shape: GridShape
) -> list[Planned]:
    """Plan what `run_grid` would run, a plan for each panel and label."""
    panels: dict[tuple[str, str], list[Experiment]] = {}
    lies = len(shape.lies)
    for panel, _, label, experiment in grid_runs(base, strategies, seeds, shape):
        panels.setdefault((panel, label), []).append(experiment)
    return [
        plan(
            f"{panel} {label}".strip(),
            experiments[: len(seeds)],
            repeats=lies,
            chosen=["byzantine.attack"],
        )
        for (panel, label), experiments in panels.items()
    ]


def plan_sweep(sweep: SweepPlan, *, label: str, out: Path | None, resume: bool) -> list[Planned]:
    """Plan the trials of a sweep, and the runs of the best of them."""
    sweep.require()
    search, count = resolved(sweep.search, sweep.spaces, sweep.trials)
    if out is not None:
        sweep_place(out, replace(sweep, search=search), resume)
    settings = {name: space.ends[0] for name, space in sweep.spaces.items()}
    trials = [sweep.experiment(settings, seed) for seed in sweep.tuned_on]
    told = f"{label} of {', '.join(settings)}"
    found = [plan(told, trials, repeats=count, chosen=settings)]
    best = [sweep.experiment(settings, seed) for seed in sweep.seeds]
    return [*found, plan("the best", best, chosen=settings)]


def changed_settings(experiment: Experiment) -> dict[str, tuple[Scalar, Scalar | None]]:
    """Return the settings that differ from their defaults: value and default."""
    names = (experiment.scenario, experiment.strategy, experiment.engine)
    usual = {
        f"{section}.{name}": value
        for section, cls in config_classes(*names).items()
        for name, value in default_values(cls).items()
    }
    return {
        name: (value, usual.get(name))
        for name, value in experiment.settings.items()
        if name not in usual or usual[name] != value
    }


def require_place(out: Path | None, resume: bool, experiment: Experiment) -> None:
    """Raise ConfigError where a run could not write, or go on."""
    require_begun(out, resume)
    if out is None:
        return
    RunDirectory(out, experiment).require_free(resume=resume)
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise ConfigError(f"--out {out} cannot be written, for {there} cannot; name another")


def _require_clients(experiment: Experiment, scenario: Scenario) -> None:
    """Raise ConfigError for clients that cannot be made, and where there is no deployment."""
    if experiment.engine == "superlink":
        with open_engine(experiment, scenario):
            return
    scenario.cohort(range(min(experiment.num_clients, _MOST_MADE)), 0)
