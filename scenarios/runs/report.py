"""A report on runs: one page with curves, tables, settings, failures, privacy, grids and images."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedzo.errors import ConfigError
from fedzo.records.page import (
    Section,
    page,
    paragraph,
    picture,
    table,
)
from fedzo.records.storage import write_whole
from scenarios.runs import report_data, report_finetune
from scenarios.runs.gathered import require_one_scenario
from scenarios.runs.report_data import Runs
from scenarios.runs.report_finetune import TunedRuns
from scenarios.runs.report_sections import sections_of_runs
from scenarios.runs.rundir import HISTORY
from scenarios.runs.stored import by_label, load_runs

_SHOWN = (HISTORY, "grid.json", "report.json", report_finetune.LOOKS)
LARGEST = 5_000_000
"""Bytes of a page; images that would exceed it are left out, and that is said."""


def write_report(directories: Sequence[Path], out: Path) -> None:
    """Write the page about all runs, grids and attacks in and below directories.

    Runs whose directories differ in seed-N alone are seeds of one method. Raises ConfigError where
    there is nothing to report, or where runs are of different scenarios, whose values do not
    compare; CheckpointError for a damaged history.
    """
    runs, tuned = _runs(directories), report_finetune.tuned_runs(directories)
    if runs and tuned:
        raise ConfigError(
            f"{next(iter(tuned.values()))[0].path} is of `fedzo finetune` and others are runs,"
            " whose values do not compare; make a report of each"
        )
    grids = report_data.grids(directories)
    attacks = _attacks(directories)
    axes, quantities = report_data.axes_of(runs), report_data.quantities_of(runs)
    every = report_data.stride(runs, len(axes) + len(quantities))
    methods = report_data.curves(runs, list(axes), list(quantities), every)
    data = {
        "axes": report_finetune.AXES if tuned else axes,
        "quantities": report_finetune.QUANTITIES if tuned else quantities,
        "methods": report_finetune.curves(tuned) if tuned else methods,
        "failures": report_data.failures(runs),
        "grids": grids,
    }
    sections = [
        *sections_of_runs(runs, axes, quantities, every),
        *(report_finetune.sections(tuned) if tuned else []),
        *_of_grids(grids),
        *(_of_attack(folder) for folder in attacks),
    ]
    title = _title(runs, tuned, directories)
    text = page(title, sections, data)
    text = page(title, [*sections, *_of_images(runs, attacks, LARGEST - len(text.encode()))], data)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, text)


def _runs(directories: Sequence[Path]) -> Runs:
    """Return runs by label; raises ConfigError where their values do not compare."""
    for folder in directories:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no directory; name one written by --out")
        if not any(any(folder.rglob(name)) for name in _SHOWN):
            raise ConfigError(
                f"{folder} holds none of {', '.join(_SHOWN)}; name directories written by --out"
            )
    holding = [folder for folder in directories if any(folder.rglob(HISTORY))]
    runs = by_label(load_runs(*holding)) if holding else {}
    require_one_scenario(runs)
    return runs


def _attacks(directories: Sequence[Path]) -> list[Path]:
    """Return where `fedzo attack` has written its report."""
    return sorted({path.parent for folder in directories for path in folder.rglob("report.json")})


def _title(runs: Runs, tuned: TunedRuns, directories: Sequence[Path]) -> str:
    if tuned:
        asked = [run.asked for several in tuned.values() for run in several]
        seeds = sorted({each["seed"] for each in asked})
        return f"{asked[0]['task']}, {len(tuned)} methods, seeds {', '.join(map(str, seeds))}"
    if not runs:
        return f"fedzo: {', '.join(folder.name or str(folder) for folder in directories)}"
    ones = [one for several in runs.values() for one in several]
    first = ones[0].experiment
    seeds = sorted({one.experiment.seed for one in ones})
    return f"{first.scenario}, {len(runs)} methods, seeds {', '.join(map(str, seeds))}"


def _of_grids(grids: Sequence[Mapping[str, Any]]) -> list[Section]:
    return [
        Section(f"Robustness: {grid['measure']}", f'<div id="fedzo-grid-{number}"></div>')
        for number, grid in enumerate(grids)
    ]


def _of_attack(folder: Path) -> Section:
    """Return what report.json of `fedzo attack` says, but its list of images."""
    path = folder / "report.json"
    try:
        told = json.loads(path.read_text())
        rows = [[n, str(v)] for n, v in told.items() if not isinstance(v, list | dict)]
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is no report of `fedzo attack` ({error!r})") from error
    return Section(f"Attack: {folder}", table(["", ""], rows))


def _of_images(runs: Runs, attacks: Sequence[Path], room: int) -> list[Section]:
    """Return the pictures that attacks have left, as many as there is room for in bytes."""
    places = [
        (one.path / "figure.png", f"{label}, seed {one.experiment.seed}")
        for label, several in runs.items()
        for one in several
        if one.experiment.scenario == "attack"
    ]
    places += [(folder / "figure.png", str(folder)) for folder in attacks]
    shown, left_out = "", []
    for path, caption in places:
        if not path.is_file():
            continue
        one = picture(path, caption)
        if len(one) > room - 1000:
            left_out.append(caption)
            continue
        room -= len(one)
        shown += one
    if left_out:
        shown += paragraph(f"Left out, for the size of this page: {', '.join(left_out)}.")
    return [Section("Images", shown)] if shown else []
