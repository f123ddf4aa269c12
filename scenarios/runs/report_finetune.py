"""What a report says of `fedzo finetune`: curves by example-forwards, and where they have ended."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedzo.errors import ConfigError
from fedzo.records.page import Section, paragraph, table
from fedzo.records.spread import mean_and_error
from scenarios.runs.report_sections import curves_section, pairs_section, settings_section

ASKED, LOOKS = "finetune.json", "curve.jsonl"
AXES = {"forwards": "example-forwards", "step": "steps", "seconds": "wall seconds"}
QUANTITIES = {
    "test_accuracy": "test accuracy",
    "test_loss": "test loss",
    "train_loss": "training loss since the look before",
}
_ALIKE = ("seed", "workers", "address", "device", "data_dir")
"""What runs of one method may differ in: seeds, and what changes no number."""
_PAIRED = "test_loss"


@dataclass(frozen=True)
class Tuned:
    """One run: its folder, what was asked for, and what was seen at each look."""

    path: Path
    asked: Mapping[str, Any]
    looks: Sequence[Mapping[str, float | None]]

    @cached_property
    def method(self) -> dict[str, Any]:
        """What runs of other seeds have too."""
        return {name: value for name, value in self.asked.items() if name not in _ALIKE}

    @property
    def is_finished(self) -> bool:
        """Whether it has spent its forwards."""
        return bool(self.looks) and (self.looks[-1]["forwards"] or 0) >= self.asked["forwards"]


TunedRuns = Mapping[str, Sequence[Tuned]]


def tuned_runs(directories: Sequence[Path]) -> dict[str, list[Tuned]]:
    """Return the runs of `fedzo finetune` in and below directories, by method.

    Raises ConfigError where they are of several tasks, or a file is damaged, or two runs of one
    method have the same seed.
    """
    paths = {file.parent for folder in directories for file in folder.rglob(LOOKS)}
    runs = [_read(path) for path in sorted(paths)]
    tasks = sorted({str(run.asked["task"]) for run in runs})
    if len(tasks) > 1:
        raise ConfigError(
            f"the runs are of the tasks {', '.join(tasks)}, whose values do not compare; make a"
            " report of each"
        )
    names = [n for n in (runs[0].method if runs else {}) if n not in ("task", "method")]
    differ = [n for n in names if len({repr(run.asked.get(n)) for run in runs}) > 1]
    found: dict[str, list[Tuned]] = {}
    for run in runs:
        words = [f"{name}={run.asked[name]}" for name in differ if run.asked.get(name)]
        found.setdefault(" ".join([run.asked["method"], *words]), []).append(run)
    for label, several in found.items():
        seeds = [run.asked["seed"] for run in several]
        if len({*seeds}) < len(seeds):
            twice = statistics.mode(seeds)
            places = ", ".join(str(run.path) for run in several if run.asked["seed"] == twice)
            raise ConfigError(f"seed {twice} of {label} is there twice: {places}; name one of them")
    return found


def curves(runs: TunedRuns) -> list[dict[str, Any]]:
    """Return label, seeds and columns of all runs, as the charts draw them."""
    names = (*AXES, *QUANTITIES)
    return [
        {
            "label": label,
            "runs": [
                {
                    "seed": run.asked["seed"],
                    "problems": [{name: [look[name] for look in run.looks] for name in names}],
                }
                for run in several
            ],
        }
        for label, several in runs.items()
    ]


def sections(runs: TunedRuns) -> list[Section]:
    """Return curves, results, paired comparisons and settings."""
    finals = {
        label: {run.asked["seed"]: run.looks[-1][_PAIRED] for run in several}
        for label, several in runs.items()
    }
    known = {
        label: {seed: value for seed, value in of.items() if value is not None}
        for label, of in finals.items()
    }
    return [
        curves_section(AXES, QUANTITIES, 1),
        _of_results(runs),
        *pairs_section(known, f"the last {QUANTITIES[_PAIRED]}"),
        settings_section({label: several[0].method for label, several in runs.items()}),
    ]


def _of_results(runs: TunedRuns) -> Section:
    measures: dict[str, Callable[[Tuned], float | None]] = {
        "last test accuracy": lambda run: run.looks[-1]["test_accuracy"],
        "best test accuracy": lambda run: max(look["test_accuracy"] or 0 for look in run.looks),
        "last test loss": lambda run: run.looks[-1]["test_loss"],
        "last training loss": lambda run: run.looks[-1]["train_loss"],
        "example-forwards": lambda run: run.looks[-1]["forwards"],
        "steps": lambda run: run.looks[-1]["step"],
        "seconds": lambda run: run.looks[-1]["seconds"],
    }
    head = ["method", "seeds", *(cell for name in measures for cell in (name, "s.e."))]
    rows: list[list[object]] = []
    for label, several in runs.items():
        row: list[object] = [label, len(several)]
        for measure in measures.values():
            values = np.array([measure(run) for run in several], dtype=np.float64)
            row += [None if np.isnan(n) else float(n) for n in mean_and_error(values)]
        rows.append(row)
    note = (
        "Mean and standard error over seeds. Best is the best of all looks, chosen on the test"
        " examples. One example once through the trained layers is an example-forward; backward"
        " passes of first_order are not counted."
    )
    unfinished = [
        str(run.path) for several in runs.values() for run in several if not run.is_finished
    ]
    if unfinished:
        note += f" Not finished: {', '.join(unfinished)}."
    return Section("Results", table(head, rows) + paragraph(note))


def _read(path: Path) -> Tuned:
    try:
        asked = json.loads((path / ASKED).read_text())
        looks = [json.loads(line) for line in (path / LOOKS).read_text().splitlines()]
        run = Tuned(path, asked, looks)
        if not looks or {*AXES, *QUANTITIES} - {*looks[0]} or {"task", "method", "seed"} - {*asked}:
            raise ValueError("something is missing")
        return run
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no run of `fedzo finetune` ({error})") from error
