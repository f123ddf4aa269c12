"""Several strategies on the same problems and seeds: tables with standard errors, one figure."""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fedzo.config import Scalar, field_names, in_words, unknown_key
from fedzo.errors import ConfigError, RunError
from fedzo.records.figure_look import FigureLook
from fedzo.records.history import AXES
from fedzo.records.storage import storing, write_whole
from fedzo.records.strict_json import strict_json
from fedzo.records.terminal import say
from scenarios.runs.comparison import Comparison, paired_of, row_of
from scenarios.runs.experiment import (
    Experiment,
    config_classes,
    effects_of,
    make_experiment,
)
from scenarios.runs.extension import EXPERIMENT, require_same_or_extendable
from scenarios.runs.milestones import milestones_of, require_recorded, targets_of
from scenarios.runs.names import strategy_entry
from scenarios.runs.own_strategy import named
from scenarios.runs.retime import require_fleets, require_retimable, retime
from scenarios.runs.retiming import retimed
from scenarios.runs.simulate import RunResult, simulate
from scenarios.runs.table_remarks import of_partial
from strategies.core.base import RoundStrategy
from strategies.core.uncovered import warn_of_several


def compare(
    base: Mapping[str, Any],
    strategies: Sequence[str | type[RoundStrategy[Any]] | RoundStrategy[Any]],
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
    excused: Collection[str] = (),
    figure: Path | None = None,
    look: FigureLook | None = None,
    fleets: Sequence[str] = (),
) -> Comparison:
    """Run every strategy with every seed; `base` holds the other arguments of make_experiment.

    A strategy is a name, or LABEL=NAME so that one can run with several settings, a class, or an
    object made of settings. at: axis ->
    positions at which the lowest F so far is wanted. reach: metric -> levels, for each of which is
    wanted what it took to get there for good. tolerant: a run that cannot go on becomes a failure
    of its label, which has no means then; it is an error otherwise. excused: settings, as
    typed, that may have no effect in any of the runs. figure: its file, without which it is
    out/compare.png; look: how it looks. fleets: presets on which all runs are re-timed, which are
    then told as `LABEL on FLEET`, with the settings of fleet in `base`. Runs lie in
    out/LABEL/seed-N.
    Raises ConfigError before anything runs, or after the first run for metrics it does not have.
    """
    out = None if out is None else Path(out)
    if resume and out is None:
        raise ConfigError("resume needs the directory of the comparison: give --out")
    base, own = without_fleet(base) if fleets else (base, {})
    require_fleets(fleets, own)
    base, names = written(base, strategies)
    experiments = planned(base, names, seeds, excused=excused)
    check_axes(axis, at or {})
    if fleets:
        for _, experiment in experiments:
            require_retimable(experiment)
    if figure is not None:
        from fedzo.records.plots import check_figure  # matplotlib, for who draws

        check_figure(figure)
    if out is not None and resume:
        _require_resumable(out, experiments)
    ran_by: dict[str, list[RunResult]] = {name: [] for name, _ in experiments}
    failures: dict[str, str] = {}
    for number, (name, experiment) in enumerate(experiments, start=1):
        seed = experiment.seed
        if console and console.is_terminal:
            say(console, f"run {number} of {len(experiments)}: {name}, seed {seed}")
        place = None if out is None else out / name / f"seed-{seed}"
        try:
            ran_by[name].append(_run(experiment, place, resume, threads))
            if fleets and number == 1:
                retime(ran_by[name][0], fleets[0], **own)  # a query without a price ends it here
            require_recorded(reach or {}, ran_by[name], out)
        except RunError as error:
            if not tolerant:
                raise
            failures[name] = str(error)
    ran = [run for runs in ran_by.values() for run in runs]
    warn_of_several(sum(run.experiment.own_data and run.epsilon is not None for run in ran))
    results: Mapping[str, Sequence[RunResult]]
    results = {name: runs for name, runs in ran_by.items() if name not in failures}
    if fleets:
        results = retimed(results, fleets, own, {}).results
    first = experiments[0][1]
    title = f"{first.scenario}, {first.num_clients} clients, seeds {', '.join(map(str, seeds))}"
    summaries = [run.summary() for runs in results.values() for run in runs]
    figure = figure or (None if out is None else out / "compare.png")
    undrawn = _draw(figure, results, axis, title, look) if figure and results else ""
    comparison = Comparison(
        title,
        [row_of(name, runs) for name, runs in results.items()],
        summaries,
        None if undrawn else figure,
        milestones_of(results, at or {}),
        targets_of(results, reach or {}),
        failures,
        paired_of(results),
        undrawn,
        [*of_partial(results)],
    )
    if results and out is not None:
        with storing(out):
            write_whole(out / "compare.json", strict_json(comparison.to_json(), indent=1))
    return comparison


def without_fleet(base: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Scalar]]:
    """Return a comparison without settings of its fleet, and these without their section."""
    prefix, settings = "fleet.", in_words(base.get("settings", {}))
    own = {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
    kept = {k: v for k, v in settings.items() if not k.startswith(prefix)}
    return {**base, "settings": kept}, own


def _draw(
    figure: Path,
    results: Mapping[str, Sequence[RunResult]],
    axis: str,
    title: str,
    look: FigureLook | None,
) -> str:
    """Draw the figure; where a wish for it cannot be met, return why: the runs were not in vain."""
    from fedzo.records.plots import plot_runs  # matplotlib: half a second for who draws

    histories = {name: [run.records for run in runs] for name, runs in results.items()}
    asks = all(run.queries for runs in results.values() for run in runs)
    chosen = "rounds" if axis == "queries" and not asks else axis
    try:
        plot_runs(figure, histories, axis=chosen, title=title, look=look)
    except ConfigError as error:
        if look is None:
            raise
        return f"no figure was drawn: {error}"
    return ""


def _require_resumable(out: Path, experiments: Sequence[tuple[str, Experiment]]) -> None:
    """Raise ConfigError, before any run goes on, where one of those begun cannot."""
    for name, experiment in experiments:
        place = out / name / f"seed-{experiment.seed}"
        if (place / EXPERIMENT).exists():
            require_same_or_extendable(place, experiment)


def _run(experiment: Experiment, place: Path | None, resume: bool, threads: int) -> RunResult:
    """Run one of a comparison; one that is resumed begins what it had not reached."""
    begun = place is not None and (place / "experiment.toml").exists()
    return simulate(experiment, out=place, resume=resume and begun, threads=threads)


def labelled(strategies: Sequence[str]) -> dict[str, str]:
    """Return label -> strategy; raises ConfigError for repeated labels and unknown strategies."""
    labels: dict[str, str] = {}
    for text in strategies:
        label, name = split_label(text)
        strategy_entry(name)
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


def split_label(text: str) -> tuple[str, str]:
    """Split LABEL=NAME; a strategy without a label has its name, Mine for mine.py:Mine."""
    label, equals, name = text.partition("=")
    return (label, name) if equals else (text.rpartition(":")[2], text)


def written(
    base: Mapping[str, Any], strategies: Sequence[object]
) -> tuple[dict[str, Any], list[str]]:
    """Return a comparison with names in the place of strategies that are given as objects."""
    settings, names = dict(base.get("settings", {})), []
    for strategy in strategies:
        name, made_with = named(strategy)
        label = split_label(name)[0]
        names.append(f"{label}={name}" if made_with else name)
        own = {f"{label}:{key}": v for key, v in made_with.items() if key not in settings}
        settings = {**own, **settings}
    return {**base, "settings": in_words(settings)}, names


def check_axes(axis: str, at: Mapping[str, Sequence[float]]) -> None:
    """Raise ConfigError for an axis that there is not, and for positions below 0."""
    for name in (axis, *at):
        if name not in AXES:
            raise ConfigError(f"axis {name!r} is unknown; allowed: {', '.join(AXES)}")
        if not all(position >= 0 for position in at.get(name, [])):
            raise ConfigError(f"positions {list(at[name])} on axis {name!r} must be 0 or more")


def planned(
    base: Mapping[str, Any],
    strategies: Sequence[str],
    seeds: Sequence[int],
    *,
    excused: Collection[str] = (),
) -> list[tuple[str, Experiment]]:
    """Return the label and experiment of every run of a comparison; arguments as of `compare`.

    Raises ConfigError where one of them cannot be, and for a setting that none of them uses.
    """
    labels = labelled(strategies)
    if not labels or not seeds:
        raise ConfigError("a comparison needs at least one strategy and one seed")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds {list(seeds)} must not repeat")
    typed = typed_by_label(base, labels)
    used = {*used_keys(base, strategies), *excused, *base.get("excused", ())}
    made = []
    for label, seed in itertools.product(labels, seeds):
        own = {
            "strategy": labels[label],
            "seed": seed,
            "settings": own_settings(base, typed[label]),
        }
        excused = {key for key, said in typed[label].items() if said in used}
        made.append((label, make_experiment(**{**base, **own, "excused": excused})))
    return made


def used_keys(base: Mapping[str, Any], strategies: Sequence[str]) -> set[str]:
    """Return which settings of a comparison have an effect in one of its runs, as they were typed.

    `label:key` where it was typed for one strategy alone; arguments as of `compare`.
    """
    labels, found = labelled(strategies), set[str]()
    for label, typed in typed_by_label(base, labels).items():
        effects = effects_of(
            base["scenario"],
            labels[label],
            base.get("engine", "inprocess"),
            own_settings(base, typed),
        )
        idle = effects.without(typed)
        found |= {said for key, said in typed.items() if key not in idle}
    return found


def own_settings(base: Mapping[str, Any], typed: Mapping[str, str]) -> dict[str, Scalar]:
    """Return the settings of a label."""
    return {key: base["settings"][said] for key, said in typed.items()}


def typed_by_label(base: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return for each label its settings -> as what they were typed: key, or label:key.

    A key goes to all that have it but those whose label says it. Raises ConfigError if none has it.
    """
    engine = base.get("engine", "inprocess")
    valid = {
        label: {
            f"{section}.{field}"
            for section, cls in config_classes(base["scenario"], name, engine).items()
            for field in field_names(cls)
        }
        for label, name in labels.items()
    }
    chosen: dict[str, dict[str, str]] = {label: {} for label in labels}
    for said in base.get("settings", {}):
        only, colon, key = said.rpartition(":")
        if colon and only not in chosen:
            raise unknown_key(only, labels, what="strategy or label")
        targets = [only] if colon else [label for label in labels if key in valid[label]]
        if not targets:
            raise unknown_key(key, set().union(*valid.values()))
        for label in targets:
            if colon or f"{label}:{key}" not in base["settings"]:
                chosen[label][key] = said
    return chosen
