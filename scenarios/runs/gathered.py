"""Runs by label, from what a user has: directories, stored runs, results, or labels of those."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedzo.errors import ConfigError, FedzoWarning
from scenarios.runs.run_result import RunResult
from scenarios.runs.stored import SEED, StoredRun, by_label, load_runs

OneRun = str | Path | StoredRun | RunResult
SomeRuns = OneRun | Sequence[OneRun]
AnyRuns = SomeRuns | Mapping[str, SomeRuns]
_ALLOWED = (
    "directories of runs, what fedzo.load_run, load_runs, simulate or federate returned, lists of"
    " these, or a mapping from labels to them"
)


def gather(runs: AnyRuns) -> dict[str, list[RunResult]]:
    """Return results by label and seed; several runs of one label are seeds of one method.

    Labels are those of a mapping; of directories their names, above seed-N; of results the
    strategies' names. Raises ConfigError for what is no run, for a directory without one, and where
    a label has a seed twice.
    """
    found = (
        {label: [one for each in gather(some).values() for one in each]
         for label, some in runs.items()}
        if isinstance(runs, Mapping)
        else _by_own_label(_listed(runs))
    )  # fmt: skip
    if not any(found.values()):
        raise ConfigError(f"there are no runs; give {_ALLOWED}")
    for label, results in found.items():
        _require_own_seeds(label, results)
    return {
        label: sorted(results, key=lambda result: result.experiment.seed)
        for label, results in found.items()
    }


def with_records(runs: Mapping[str, Sequence[RunResult]]) -> dict[str, list[RunResult]]:
    """Return the runs that have recorded something, and warn of others, if there are any."""
    kept = {label: [run for run in some if run.records] for label, some in runs.items()}
    if not any(kept.values()):
        return {label: [*some] for label, some in runs.items()}
    empty = [
        str(run.out or label) for label, some in runs.items() for run in some if not run.records
    ]
    if empty:
        warnings.warn(
            f"left out, for nothing is recorded there yet: {', '.join(empty)}",
            FedzoWarning,
            stacklevel=3,
        )
    return {label: some for label, some in kept.items() if some}


def require_one_scenario(runs: Mapping[str, Sequence[StoredRun] | Sequence[RunResult]]) -> None:
    """Raise ConfigError where labels are of runs of several scenarios."""
    kinds = {one.experiment.scenario: label for label, some in runs.items() for one in some}
    if len(kinds) > 1:
        told = ", ".join(f"{kind} ({label})" for kind, label in kinds.items())
        raise ConfigError(
            f"the runs are of several scenarios, whose values do not compare: {told}; name the"
            " directories of one"
        )


def _listed(runs: object) -> list[OneRun]:
    several = runs if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
    found: list[OneRun] = []
    for one in several:
        if not isinstance(one, str | Path | StoredRun | RunResult):
            raise ConfigError(f"{type(one).__name__} {str(one)[:60]!r} is no run; give {_ALLOWED}")
        found.append(one)
    return found


def _by_own_label(runs: Sequence[OneRun]) -> dict[str, list[RunResult]]:
    places = [one for one in runs if isinstance(one, str | Path)]
    stored = [*load_runs(*places), *(one for one in runs if isinstance(one, StoredRun))]
    found = {label: [run.numbers for run in some] for label, some in by_label(stored).items()}
    for result in runs:
        if isinstance(result, RunResult):
            found.setdefault(_label_of(result), []).append(result)
    return found


def _label_of(result: RunResult) -> str:
    out = result.out
    return out.parent.name if out and out.name.startswith(SEED) else result.experiment.strategy


def _require_own_seeds(label: str, results: Sequence[RunResult]) -> None:
    counts = Counter(result.experiment.seed for result in results)
    twice = [seed for seed, count in counts.items() if count > 1]
    if twice:
        places = ", ".join(_places(results, twice[0]))
        told = f" ({places})" if places else ""
        raise ConfigError(
            f"{label} has seed {twice[0]} {counts[twice[0]]} times{told}; give each method a label"
            " of its own, {'label': runs, ...} in Python, or directories of other names"
        )


def _places(results: Sequence[RunResult], seed: int) -> Iterator[str]:
    for result in results:
        if result.experiment.seed == seed and result.out is not None:
            yield str(result.out)
