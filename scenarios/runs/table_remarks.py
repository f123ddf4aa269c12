"""What a reader of a table must know of the runs behind it, a sentence each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from scenarios.runs.experiment import Experiment
from scenarios.runs.judged import is_partial
from scenarios.runs.run_result import RESULT, RunResult
from scenarios.runs.stored import StoredRun

_EFFORT = ("rounds", "queries")
_NAMED = 4
"""Settings that differ which a sentence names."""
Results = Mapping[str, Sequence[RunResult]]
Values = dict[str, dict[int, float]]
"""Numbers by label and seed."""


def of_runs(runs: Results) -> Iterator[str]:
    """Say what is particular about the runs as such."""
    begun = [str(run.out) for some in runs.values() for run in unfinished(some)]
    if begun:
        yield f"Not finished: {', '.join(begun)}."
    yield from of_mixed(runs)
    yield from of_effort(runs)
    seeds = {label: {run.experiment.seed for run in some} for label, some in runs.items()}
    if any(mine != next(iter(seeds.values())) for mine in seeds.values()):
        yield (
            "Methods have different seeds: means are over each method's own, differences over those"
            " in common."
        )
    first = {label: some[0].experiment for label, some in runs.items()}
    told = {
        label: {
            "num_clients": made.num_clients,
            **{n: v for n, v in made.settings.items() if n.startswith("scenario.")},
        }
        for label, made in first.items()
    }
    for name in dict.fromkeys(name for mine in told.values() for name in mine):
        if len({repr(mine.get(name)) for mine in told.values()}) > 1:
            each = ", ".join(f"{label} {mine.get(name)}" for label, mine in told.items())
            yield f"{name} differs ({each}), so these may be values of different problems."


PARTIAL = "of too few clients (partial), and so of another function than F of all"


def of_mixed(runs: Mapping[str, Sequence[RunResult] | Sequence[StoredRun]]) -> Iterator[str]:
    """Say which labels have runs that differ in more than the seed."""
    for label, some in runs.items():
        told = [_definition(run.experiment) for run in some]
        names = dict.fromkeys(name for each in told for name in each)
        differ = [name for name in names if len({repr(each.get(name)) for each in told}) > 1]
        if differ:
            each = ", ".join(
                f"{name} ({', '.join(dict.fromkeys(str(one.get(name)) for one in told))})"
                for name in differ[:_NAMED]
            )
            more = f" and {len(differ) - _NAMED} more" if len(differ) > _NAMED else ""
            yield f"Runs of {label} are not seeds of one experiment: they differ in {each}{more}."


def _definition(made: Experiment) -> dict[str, object]:
    """Return what makes values of a run what they are, but the seed."""
    names = ("scenario", "strategy", "num_rounds", "num_clients", "query_budget")
    settings = {n: v for n, v in made.settings.items() if not n.startswith("engine.")}
    return {**{name: getattr(made, name) for name in names}, **settings}


def of_effort(runs: Results) -> Iterator[str]:
    """Say where methods ended after other numbers of rounds, and of queries."""
    ends = {
        label: [median(run.last_records[-1].axis(axis) for run in some) for axis in _EFFORT]
        for label, some in runs.items()
    }
    if all(max(told) > 1.1 * min(told) for told in zip(*ends.values(), strict=True)):
        each = ", ".join(f"{label} {r:,g} and {q:,g}" for label, (r, q) in ends.items())
        yield f"Methods ended after other numbers of rounds and queries ({each})."


def of_partial(
    runs: Results, axis: str = "rounds", limit: float = math.inf, where: str = "the end"
) -> Iterator[str]:
    """Say whose F at a position is not that of all clients."""
    for label, some in runs.items():
        seeds = [run.experiment.seed for run in some if is_partial(run.records, axis, limit)]
        if seeds:
            yield f"F of {label} at {where} with {seeds_in_words(seeds)} is {PARTIAL}."


def unfinished(runs: Sequence[RunResult]) -> list[RunResult]:
    """Return the stored runs that have not come to their end."""
    return [run for run in runs if run.out is not None and not (run.out / RESULT).exists()]


def of_missing(values: Values) -> Iterator[str]:
    for label, by_seed in values.items():
        lost = [seed for seed, value in by_seed.items() if math.isnan(value)]
        if lost:
            yield f"{label} has no value there with {seeds_in_words(lost)}, left out."


def of_infinite(values: Values, what: str) -> Iterator[str]:
    for label, by_seed in values.items():
        lost = [seed for seed, value in by_seed.items() if math.isinf(value)]
        if lost:
            yield (
                f"{label} {what} with {seeds_in_words(lost)}: that ranks behind every number, and"
                " there is no mean."
            )


def of_short(runs: Results, axis: str, limit: float, where: str, which: str) -> Iterator[str]:
    """Say which runs have ended before a position."""
    if math.isinf(limit):
        return
    short = {
        label: sum(run.last_records[-1].axis(axis) < limit for run in some)
        for label, some in runs.items()
    }
    told = ", ".join(f"{n} of {len(runs[label])} of {label}" for label, n in short.items() if n)
    if told:
        yield f"Ended before {where}, so that the {which} value counts: {told}."


def seeds_in_words(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
