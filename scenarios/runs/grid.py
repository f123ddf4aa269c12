"""Aggregators against lies: a comparison for every lie, and what each row has left at worst.

Rows are strategies, or labels of them, with their aggregators; columns are lies, and the worst of
them; a setting may be varied, which gives a panel for each value. A cell is the mean over seeds
of one measure at the end of the runs; NaN, which is worse than anything, where a run could not go
on.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fedzo.adversary.lies import LIES
from fedzo.aggregation import parse_aggregator
from fedzo.config import Scalar, unknown_key
from fedzo.errors import ConfigError
from fedzo.records.storage import storing, write_whole
from fedzo.records.strict_json import strict_json
from fedzo.records.terminal import say
from fedzo.records.visible import visible
from fedzo.setting_texts import parse_setting
from scenarios.runs.compare import compare, planned, split_label, used_keys
from scenarios.runs.comparison import Comparison
from scenarios.runs.experiment import Experiment
from scenarios.runs.measures import measure_of, more_is_better
from scenarios.runs.milestones import known

WORST = "worst"


@dataclass(frozen=True, slots=True, kw_only=True)
class GridShape:
    """The columns and panels of a grid, and what its cells hold.

    lies: names of fedzo.adversary.lies. vary: a setting and its values; nothing varies without.
    measure: as of scenarios.runs.measures; empty for test_accuracy where there is one.
    """

    lies: Sequence[str]
    vary: tuple[str, Sequence[Scalar]] | None = None
    measure: str = ""

    def __post_init__(self) -> None:
        if self.measure:
            measure_of(self.measure)


@dataclass(frozen=True, slots=True)
class Grid:
    """What a grid has found: panel -> row -> lie -> mean and standard error over seeds."""

    title: str
    measure: str
    cells: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]
    figure: Path | None
    higher: bool | None = None

    @property
    def higher_is_better(self) -> bool:
        return more_is_better(self.measure, self.higher)

    def worst(self, panel: str, row: str) -> float:
        """Return the worst mean of a row over all lies; NaN is worse than anything."""
        means = [mean for mean, _ in self.cells[panel][row].values()]
        if np.isnan(means).any():
            return float("nan")
        return min(means) if self.higher_is_better else max(means)

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "title": self.title,
            "measure": self.measure,
            "higher": self.higher_is_better,
            "panels": {
                panel: {
                    row: {
                        "attacks": {
                            a: {"mean": known(m), "standard_error": known(e)}
                            for a, (m, e) in of.items()
                        },
                        WORST: known(self.worst(panel, row)),
                    }
                    for row, of in rows.items()
                }
                for panel, rows in self.cells.items()
            },
            "figure": None if self.figure is None else str(self.figure),
        }


def run_grid(
    base: Mapping[str, Any],
    strategies: Sequence[str],
    seeds: Sequence[int],
    shape: GridShape,
    *,
    out: Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    threads: int = 1,
) -> Grid:
    """Run every strategy under every lie with every seed; arguments as those of `compare`.

    Runs lie in out/PANEL/LIE/LABEL/seed-N; grid.json and grid.png in out. Raises ConfigError
    before anything runs.
    """
    asked = measure_of(shape.measure) if shape.measure else None
    measure = asked.name if asked else ""
    plans, used = _plans(base, strategies, shape)
    for _, _, plan in plans:
        planned(plan, strategies, seeds, excused=used)
    cells: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for panel, lie, plan in plans:
        if console and console.is_terminal:
            say(console, f"{panel} {lie}".strip())
        place = None if out is None else out / (re.sub(r"[^\w.=-]", "-", panel) or "runs") / lie
        found = compare(
            plan,
            strategies,
            seeds,
            out=place,
            resume=resume,
            console=console,
            tolerant=True,
            threads=threads,
            excused=used,
        )
        measure = measure or _measure_of(found)
        rows = cells.setdefault(panel, {split_label(text)[0]: {} for text in strategies})
        for row in found.rows:
            rows[row.strategy][lie] = _cell(row.means, row.errors, measure)
        for label, reason in found.failures.items():
            rows[label][lie] = (math.nan, math.nan)
            if console:
                say(console, f"{lie}: {label} failed: {visible(reason)}")
    title = f"{base['scenario']}, seeds {', '.join(map(str, seeds))}: {measure.replace('_', ' ')}"
    figure = None if out is None else out / "grid.png"
    grid = Grid(title, measure, cells, figure, asked.higher if asked else None)
    if out is not None:
        with storing(out):
            write_whole(out / "grid.json", strict_json(grid.to_json(), indent=1))
            _draw(grid, shape.lies)
    return grid


def grid_runs(
    base: Mapping[str, Any], strategies: Sequence[str], seeds: Sequence[int], shape: GridShape
) -> list[tuple[str, str, str, Experiment]]:
    """Return panel, lie, label and experiment of every run; raises ConfigError as run_grid."""
    plans, used = _plans(base, strategies, shape)
    return [
        (panel, lie, label, experiment)
        for panel, lie, plan in plans
        for label, experiment in planned(plan, strategies, seeds, excused=used)
    ]


def _plans(
    base: Mapping[str, Any], strategies: Sequence[str], shape: GridShape
) -> tuple[list[tuple[str, str, dict[str, Any]]], set[str]]:
    """Return panel, lie and arguments of every comparison, and the settings that some run uses."""
    plans = [
        (panel, lie, {**base, "settings": {**base.get("settings", {}), **changed}})
        for panel, variation in _panels(shape)
        for lie in shape.lies
        for changed in [{**variation, "byzantine.attack": lie}]
    ]
    return plans, set().union(*(used_keys(plan, strategies) for _, _, plan in plans))


def with_aggregators(
    base: Mapping[str, Any], strategies: Sequence[str], aggregators: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return every strategy with every aggregator, under labels of their own, and their settings.

    The plain mean is told of no malicious client, because it withstands none.
    """
    if not aggregators:
        return dict(base), list(strategies)
    settings: dict[str, Scalar] = dict(base.get("settings", {}))
    labels: list[str] = []
    for text in strategies:
        label, name = split_label(text)
        for aggregator in aggregators:
            own = f"{label}.{re.sub(r'[^a-zA-Z0-9_.]+', '-', aggregator).strip('-')}"
            labels.append(f"{own}={name}")
            shared = {k: v for k, v in settings.items() if k.startswith(f"{label}:")}
            settings.update({f"{own}:{k.partition(':')[2]}": v for k, v in shared.items()})
            settings[f"{own}:strategy.aggregator"] = aggregator
            if parse_aggregator(aggregator).is_mean:
                settings[f"{own}:strategy.num_byzantine"] = 0
    replaced = tuple(f"{split_label(text)[0]}:" for text in strategies)
    kept = {k: v for k, v in settings.items() if not k.startswith(replaced)}
    return {**base, "settings": kept}, labels


def parse_aggregators(text: str) -> list[str]:
    """Split aggregators at the commas that are not inside parentheses."""
    parts = re.split(r",(?![^()]*\))", text)
    return [part.strip() for part in parts if part.strip()]


def parse_lies(text: str, base: Mapping[str, Any]) -> list[str]:
    """Split lies at commas; `all` is all that the scenario allows.

    Nothing is the one in the settings. Raises ConfigError for an unknown one.
    """
    if text.strip() == "all":
        labelled = base.get("scenario") == "classification"
        return [name for name in LIES if labelled or name != "label_flip"]
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in LIES:
            raise unknown_key(name, LIES, what="attack")
    if len(set(names)) < len(names):
        raise ConfigError(f"attacks {names} must not repeat")
    return names or [str(base.get("settings", {}).get("byzantine.attack", "none"))]


def parse_variation(text: str | None) -> tuple[str, list[Scalar]] | None:
    """Split KEY=V,V,...; raises ConfigError where there is no value."""
    if text is None:
        return None
    key, equals, values = text.partition("=")
    parts = [part.strip() for part in values.split(",") if part.strip()]
    if not equals or not parts or len(set(parts)) < len(parts):
        raise ConfigError(
            f"--vary {text!r} is not KEY=V,V,... with different values; write for example"
            " scenario.alpha=1,100"
        )
    return key.strip(), [parse_setting(f"{key}={part}")[1] for part in parts]


def _panels(shape: GridShape) -> list[tuple[str, dict[str, Scalar]]]:
    if shape.vary is None:
        return [("", {})]
    key, values = shape.vary
    return [(f"{key.rpartition('.')[2]}={value}", {key: value}) for value in values]


def _measure_of(found: Comparison) -> str:
    """Return what a grid shows by default; nothing yet where every run has failed."""
    if not found.rows:
        return ""
    return "test_accuracy" if "test_accuracy" in found.rows[0].means else "final_value"


def _cell(
    means: Mapping[str, float], errors: Mapping[str, float], measure: str
) -> tuple[float, float]:
    if measure not in means:
        raise ConfigError(f"--measure {measure!r} is not recorded; there is {', '.join(means)}")
    return means[measure], errors.get(measure, math.nan)


def _draw(grid: Grid, lies: Sequence[str]) -> None:
    assert grid.figure is not None
    panels = {
        panel: np.array(
            [[*(of[a][0] for a in lies), grid.worst(panel, row)] for row, of in rows.items()]
        )
        for panel, rows in grid.cells.items()
    }
    rows = list(next(iter(grid.cells.values())))
    columns = [*(lie.replace("_", " ") for lie in lies), WORST]
    better = grid.higher_is_better
    from fedzo.records.heatmap import draw_heatmap  # matplotlib: for who draws

    draw_heatmap(grid.figure, panels, rows, columns, title=grid.title, higher_is_better=better)
