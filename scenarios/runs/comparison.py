"""What a comparison has given: every strategy's measures over seeds, and what the runs were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedzo.records.methods_table import MethodsTable
from fedzo.records.spread import mean_and_error
from fedzo.records.standing import Panel, standings
from scenarios.runs.milestones import Milestone, Target
from scenarios.runs.run_result import RunResult

MEASURES = (
    "final_value",
    "best_value",
    "rounds",
    "queries",
    "floats_up",
    "floats_down",
    "epsilon",
    "wall_s",
    "virtual_s",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy: mean and standard error of every measure over seeds."""

    strategy: str
    means: Mapping[str, float]
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of a comparison and their summary.

    paired: final values, compared seed by seed with the best; None where nobody was judged.
    undrawn: why there is no figure where one was asked for, which these curves do not allow.
    remarks: what must be known of the runs, a sentence each.
    """

    title: str
    rows: Sequence[Row]
    runs: Sequence[Mapping[str, Any]]
    figure: Path | None
    milestones: Sequence[Milestone] = ()
    targets: Sequence[Target] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    paired: Panel | None = None
    undrawn: str = ""
    remarks: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        strategies = {
            row.strategy: {
                "mean": dict(row.means),
                "standard_error": {name: row.errors.get(name) for name in row.means},
            }
            for row in self.rows
        }
        figure = None if self.figure is None else str(self.figure)
        return {
            "title": self.title,
            "strategies": strategies,
            "milestones": [milestone.to_json() for milestone in self.milestones],
            "targets": [target.to_json() for target in self.targets],
            "paired": None if self.paired is None else MethodsTable([self.paired]).to_json(),
            "runs": self.runs,
            "figure": figure,
            **({"undrawn": self.undrawn} if self.undrawn else {}),
            "remarks": list(self.remarks),
        }


def paired_of(results: Mapping[str, Sequence[RunResult]]) -> Panel | None:
    """Return how final values differ, seed by seed, from those of the best method."""
    values = {
        name: {run.experiment.seed: run.final_value for run in runs if run.final_value is not None}
        for name, runs in results.items()
    }
    return standings("final_value", values) if any(values.values()) else None


def row_of(name: str, runs: Sequence[RunResult]) -> Row:
    """Return mean and standard error of every measure over the runs of a label."""
    summaries = [{**run.summary(), **run.metrics} for run in runs]
    measures = [*MEASURES, *runs[0].metrics]
    columns = {
        m: np.asarray([s[m] for s in summaries], dtype=np.float64)
        for m in measures
        if all(s.get(m) is not None for s in summaries)
    }
    spread = {m: mean_and_error(column) for m, column in columns.items()}
    means = {m: float(mean) for m, (mean, _) in spread.items()}
    errors = {m: float(error) for m, (_, error) in spread.items() if len(runs) > 1}
    return Row(name, means, errors)
