"""What the charts of a report draw, as tables of numbers: those of history.jsonl exactly."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedzo.errors import ConfigError
from fedzo.records.curves import LABELS
from fedzo.records.history import AXES, RoundRecord
from scenarios.runs.measures import more_is_better
from scenarios.runs.stored import StoredRun

MOST_NUMBERS = 200_000
"""Numbers of all curves together, about 2.5 MB of a page; longer histories are thinned."""
MOST_FAILURES = 5_000

Runs = Mapping[str, Sequence[StoredRun]]


def axes_of(runs: Runs) -> dict[str, str]:
    """Return the axes on which some run has moved, with what is written at them."""
    records = [record for one in _all(runs) for record in one.records]
    moved = {name for name in AXES if any(_known(record, name) for record in records)}
    return {name: LABELS.get(name, name) for name in AXES if name in moved}


def quantities_of(runs: Runs) -> dict[str, str]:
    """Return what can be drawn: the gap first where it is known, F, and other metrics."""
    found = {name for one in _all(runs) for r in one.records for name in r.metrics}
    names = [*(["gap"] if "gap" in found else []), "value", *sorted(found - {"gap"})]
    return {name: LABELS.get(name, name.replace("_", " ")) for name in names}


def stride(runs: Runs, columns: int) -> int:
    """Return k so that every k-th record of each problem makes a page that is not too long."""
    records = sum(len(one.records) for one in _all(runs))
    return max(1, math.ceil(records * columns / MOST_NUMBERS))


def curves(runs: Runs, axes: Sequence[str], quantities: Sequence[str], every: int) -> list[Any]:
    """Return label, seeds and columns of all runs; null where a record has no such number."""
    return [
        {
            "label": label,
            "runs": [
                {
                    "seed": one.experiment.seed,
                    "problems": [
                        _columns(_thinned(records, every), axes, quantities)
                        for records in _by_problem(one.records)
                    ],
                }
                for one in several
            ],
        }
        for label, several in runs.items()
    ]


def failures(runs: Runs) -> list[dict[str, Any]]:
    """Return a row for every answer that failed, in their order, up to MOST_FAILURES."""
    found = (
        {
            "method": label,
            "seed": one.experiment.seed,
            "problem": record.problem,
            "round": record.round_index,
            "client": client,
            "reason": reason,
        }
        for label, several in runs.items()
        for one in several
        for record in one.records
        for client, reason in record.failures.items()
    )
    return [row for row, _ in zip(found, range(MOST_FAILURES), strict=False)]


def grids(directories: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the robustness grids in and below directories (grid.json, as `compare --attacks`).

    Raises ConfigError for a file that is none.
    """
    paths = sorted({path for folder in directories for path in folder.rglob("grid.json")})
    return [_grid(path) for path in paths]


def _grid(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text())
        panels = told["panels"]
        cells = [
            {"panel": panel, "row": row, "attack": attack, "mean": mean}
            for panel, rows in panels.items()
            for row, of in rows.items()
            for attack, mean in [
                *((name, cell["mean"]) for name, cell in of["attacks"].items()),
                ("worst", of["worst"]),
            ]
        ]
        return {
            "title": str(told["title"]),
            "measure": str(told["measure"]).replace("_", " "),
            "higher": more_is_better(told["measure"], told.get("higher")),
            "cells": cells,
            "rows": list(dict.fromkeys(cell["row"] for cell in cells)),
            "attacks": list(dict.fromkeys(cell["attack"] for cell in cells)),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no grid of `fedzo compare --attacks` ({error!r})") from error


def _all(runs: Runs) -> list[StoredRun]:
    return [one for several in runs.values() for one in several]


def _known(record: RoundRecord, axis: str) -> bool:
    position = record.axis(axis)
    return not math.isnan(position) and position != 0


def _by_problem(records: Sequence[RoundRecord]) -> list[list[RoundRecord]]:
    found: dict[int, list[RoundRecord]] = {}
    for record in records:
        found.setdefault(record.problem, []).append(record)
    return list(found.values())


def _thinned(records: Sequence[RoundRecord], every: int) -> list[RoundRecord]:
    """Return every k-th record that was judged, the first and the last."""
    judged = [record for record in records if record.value is not None or record.metrics]
    kept = judged[::every]
    return kept if not judged or kept[-1] is judged[-1] else [*kept, judged[-1]]


def _columns(
    records: Sequence[RoundRecord], axes: Sequence[str], quantities: Sequence[str]
) -> dict[str, list[float | None]]:
    columns: dict[str, list[float | None]] = {
        name: [_finite(record.axis(name)) for record in records] for name in axes
    }
    for name in quantities:
        values = [r.value if name == "value" else r.metrics.get(name) for r in records]
        columns[name] = [None if value is None else _finite(value) for value in values]
    return columns


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
