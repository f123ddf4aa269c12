"""What a report says of runs: curves, tables, settings, environments, failures, privacy."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedzo.errors import CheckpointError
from fedzo.records.page import Section, folded, paragraph, select, table
from fedzo.records.paired import ASSUMPTIONS, differences
from scenarios.runs.comparison import MEASURES, row_of
from scenarios.runs.environment import read_environment
from scenarios.runs.report_data import Runs
from scenarios.runs.stored import StoredRun
from scenarios.runs.table_remarks import of_mixed, of_partial

_MEASURED = "final_value"


def sections_of_runs(
    runs: Runs, axes: dict[str, str], quantities: dict[str, str], every: int
) -> list[Section]:
    """Return curves, tables, settings, environments, failures and privacy of runs, if any."""
    if not runs:
        return []
    finals = {label: _finals(several) for label, several in runs.items()}
    settings = {label: _settings(several[0]) for label, several in runs.items()}
    return [
        curves_section(axes, quantities, every),
        _of_measures(runs),
        *pairs_section(finals, _MEASURED),
        settings_section(settings, of_mixed(runs)),
        _of_environment(runs),
        _of_failures(runs),
        *_of_privacy(runs),
    ]


def curves_section(axes: dict[str, str], quantities: dict[str, str], every: int) -> Section:
    """Return the curves' place and what chooses among them; every: k-th record is drawn."""
    scales = {"linear": "linear", "log": "logarithmic"}
    choices = [
        select("axis", "axis", axes),
        select("quantity", "quantity", quantities),
        select("scale-x", "axis scale", scales),
        select("scale-y", "value scale", scales),
        select("show", "show", {"mean": "mean and band", "seeds": "every seed"}),
    ]
    note = (
        "Step functions: a value holds until the next record. The band is one standard error of the"
        " mean over seeds; of several problems, a run's curve is the mean."
    )
    if every > 1:
        note += f" Long histories: every {every}th judged record of each run is drawn."
    hidden = '<p class="note" id="fedzo-hidden"></p>'
    body = "".join(choices) + '<div id="fedzo-curves"></div>' + hidden + paragraph(note)
    return Section("Curves", body)


def _of_measures(runs: Runs) -> Section:
    rows = {label: row_of(label, [one.numbers for one in runs[label]]) for label in runs}
    names = list(dict.fromkeys(name for row in rows.values() for name in row.means))
    head = ["method", "seeds", *itertools.chain(*((name, "s.e.") for name in names))]
    cells = [
        [
            label,
            len(runs[label]),
            *itertools.chain(*((row.means.get(n), row.errors.get(n)) for n in names)),
        ]
        for label, row in rows.items()
    ]
    unfinished = [str(one.path) for several in runs.values() for one in several if not one.finished]
    note = f"Mean and standard error over seeds, of {', '.join(MEASURES)} and the metrics."
    if unfinished:
        note += f" Not finished: {', '.join(unfinished)}."
    note = " ".join([note, *of_partial({n: [one.numbers for one in s] for n, s in runs.items()})])
    return Section("Results", table(head, cells) + paragraph(note))


_COUNTS = ("pairs", "wins", "losses", "ties", "difference")
"""What is shown of Paired, in the order of the columns."""


def pairs_section(finals: Mapping[str, Mapping[int, float]], measured: str) -> list[Section]:
    """Compare every two methods on the seeds that both have; finals: by method and seed."""
    found = differences(finals, itertools.combinations(finals, 2))
    if not found:
        return []
    head = ["a", "b", "pairs", "a lower", "b lower", "ties", "mean a - b", "s.e."]
    head += ["sign test p", "Wilcoxon p", "holm"]
    rows = [
        [
            one.a,
            one.b,
            *(getattr(one.paired, name) for name in _COUNTS),
            one.paired.error if one.paired.pairs > 1 else None,
            one.paired.sign_p,
            one.paired.wilcoxon_p,
            one.holm,
        ]
        for one in found
    ]
    title = f"Paired comparison of {measured} (lower is better)"
    return [Section(title, table(head, rows) + paragraph(ASSUMPTIONS))]


def _finals(several: Sequence[StoredRun]) -> dict[int, float]:
    values = {one.experiment.seed: one.numbers.final_value for one in several}
    return {seed: value for seed, value in values.items() if value is not None}


def settings_section(told: Mapping[str, Mapping[str, Any]], remarks: Iterable[str] = ()) -> Section:
    """Return the settings of methods, those first in which they differ."""
    names = list(dict.fromkeys(name for settings in told.values() for name in settings))
    differ = [n for n in names if len({repr(of.get(n)) for of in told.values()}) > 1]
    rows = {n: [n, *(_text(settings.get(n)) for settings in told.values())] for n in names}
    head = ["setting", *told]
    short = [rows[n] for n in differ]
    body = table(head, short) if short else paragraph("All methods agree.")
    whole = table(head, list(rows.values()))
    explained = "Where methods differ; a dash is a setting that a method does not have."
    note = " ".join([*remarks, explained])
    return Section("Settings", paragraph(note) + body + folded("all settings", whole))


def _settings(run: StoredRun) -> Mapping[str, Any]:
    made = run.experiment
    names = ("scenario", "strategy", "engine", "num_rounds", "num_clients", "query_budget")
    return {**{name: getattr(made, name) for name in names}, **made.settings}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _of_environment(runs: Runs) -> Section:
    entries = [
        (label, one.experiment.seed, entry)
        for label, several in runs.items()
        for one in several
        for entry in read_environment(one.path)
    ]
    if not entries:
        return Section("Environment", paragraph("The runs have noted none."))
    names = list(dict.fromkeys(name for *_, entry in entries for name in entry))
    common = [n for n in names if len({str(entry.get(n)) for *_, entry in entries}) == 1]
    shared = table(["", ""], [[n, _text(entries[0][2].get(n))] for n in common])
    other = [n for n in names if n not in common]
    rows = [[label, seed, *(_text(e.get(n)) for n in other)] for label, seed, e in entries]
    return Section("Environment", shared + folded("runs", table(["method", "seed", *other], rows)))


def _of_failures(runs: Runs) -> Section:
    head = ["method", "seed", "asked", "failed", "late", "duplicates", "not finite", "most often"]
    rows: list[list[object]] = []
    for label, several in runs.items():
        for one in several:
            reasons = Counter(why for r in one.records for why in r.failures.values())
            often = "; ".join(f"{why} ({n})" for why, n in reasons.most_common(3))
            counts = [sum(getattr(r, n) for r in one.records) for n in ("late", "duplicates")]
            asked = sum(r.clients_asked for r in one.records)
            lost = sum(r.non_finite for r in one.records)
            failed = reasons.total()
            rows.append([label, one.experiment.seed, asked, failed, *counts, lost, often or None])
    note = paragraph("Answers of clients, as the histories count them; a dot is one that failed.")
    chart = '<div id="fedzo-failures"></div>'
    return Section("Failures and faults", note + chart + table(head, rows))


def _of_privacy(runs: Runs) -> list[Section]:
    rows: list[list[object]] = []
    ledgers = []
    for label, several in runs.items():
        for one in several:
            spent = [r for r in one.records if r.epsilon_run is not None]
            if not spent:
                continue
            told, last = one.settings, spent[-1]
            noise = [r.noise_std for r in spent if r.noise_std is not None]
            ends = [min(noise), max(noise)] if noise else [None, None]
            unit = [told.get(f"strategy.{name}") for name in ("epsilon", "delta", "unit", "noise")]
            rows.append([label, one.experiment.seed, last.epsilon_run, *unit, *ends])
            ledgers.append((label, one))
    if not rows:
        return []
    head = ["method", "seed", "epsilon spent", "epsilon allowed", "delta", "unit", "noise"]
    head += ["least noise std", "most"]
    parts = [_ledger(label, one) for label, one in ledgers]
    return [Section("Privacy ledger", table(head, rows) + "".join(parts))]


def _ledger(label: str, one: StoredRun) -> str:
    """Return the releases of a run, where its checkpoint still holds them."""
    name = f"releases of {label}, seed {one.experiment.seed}"
    try:
        ledger = one.state.privacy.whole
    except (CheckpointError, AttributeError) as error:
        return folded(name, paragraph(f"not to be read: {error}"))
    head = ["std / sensitivity", "releases", "drawn", "population"]
    return folded(name, table(head, [list(row) for row in ledger.rows.tolist()]))
