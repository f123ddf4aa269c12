"""Runs with histories that a test chooses, in memory and on disk: nothing is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedzo.config import Scalar
from fedzo.records.history import RoundRecord, write_history
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.experiment_file import sealed_toml
from scenarios.runs.run_result import RESULT, RunResult

Value = float | None


def records_of(
    values: Sequence[Value], *, per_round: int = 50, metric: str | None = None
) -> list[RoundRecord]:
    """Return a history: a value a round, as F, or as a metric beside F = 0."""
    return [
        RoundRecord(
            round_index=number,
            queries=per_round * number,
            value=value if metric is None else 0.0,
            metrics={} if metric is None or value is None else {metric: value},
        )
        for number, value in enumerate(values)
    ]


def experiment_of(
    seed: int, *, scenario: str = "quadratic", settings: Mapping[str, Scalar] | None = None
) -> Experiment:
    made = {"scenario.dim": 3, **(settings or {})} if scenario == "quadratic" else settings or {}
    return make_experiment(scenario, "fedzo", num_rounds=2, num_clients=2, seed=seed, settings=made)


def result_of(
    values: Sequence[Value], seed: int = 0, *, metric: str | None = None, per_round: int = 50
) -> RunResult:
    """Return what a run with this history gives."""
    records = records_of(values, metric=metric, per_round=per_round)
    return RunResult(experiment_of(seed), records, [], {}, ["rounds"], None)


def write_run(
    folder: Path,
    records: Sequence[RoundRecord],
    seed: int = 0,
    *,
    finished: bool = True,
    scenario: str = "quadratic",
    settings: Mapping[str, Scalar] | None = None,
) -> None:
    """Write what a run leaves, as far as it is read for figures and tables."""
    folder.mkdir(parents=True)
    made = experiment_of(seed, scenario=scenario, settings=settings)
    (folder / "experiment.toml").write_text(sealed_toml(made.to_toml()))
    write_history(folder / "history.jsonl", records)
    if finished:
        (folder / RESULT).write_text("{}")


def write_methods(root: Path, methods: Mapping[str, Sequence[Sequence[Value]]]) -> Path:
    """Write the histories of methods, a seed each, into root/METHOD/seed-N."""
    for method, histories in methods.items():
        for seed, values in enumerate(histories):
            write_run(root / method / f"seed-{seed}", records_of(values), seed)
    return root
