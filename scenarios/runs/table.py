"""The table of runs for a paper: methods at a position or until a level, with paired tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedzo.config import unknown_key
from fedzo.errors import ConfigError
from fedzo.records.curves import quantity_of, recorded, require_records
from fedzo.records.methods_table import MethodsTable
from fedzo.records.standing import Panel, standings
from scenarios.runs.compare import check_axes
from scenarios.runs.config_file import parse_positions
from scenarios.runs.gathered import AnyRuns, gather, require_one_scenario, with_records
from scenarios.runs.measures import more_is_better
from scenarios.runs.milestones import reached, value_at
from scenarios.runs.run_result import RunResult
from scenarios.runs.table_remarks import (
    Results,
    Values,
    of_infinite,
    of_missing,
    of_partial,
    of_runs,
    of_short,
)

END = "end"
Position = tuple[str, float]


def table(
    runs: AnyRuns,
    *,
    y: str | None = None,
    at: str | Sequence[str] | None = None,
    target: float | Sequence[float] | None = None,
    x: str = "queries",
    best: bool = False,
    baseline: str | None = None,
    test: str = "wilcoxon",
    higher: bool | None = None,
) -> MethodsTable:
    """Compare methods over seeds: mean, standard error, and paired differences to the best.

    runs: directories, stored runs, results, lists of these, or a mapping from labels to them. y:
    value or a metric; without one, the gap to the optimum where it is known, else the value. at:
    `end`, or AXIS=N,N,... such as queries=5000 or rounds=10,50: the last y that was recorded by
    then, or with `best` the best. target: levels of y, and what x (queries, ...) it took to get
    there. baseline: the method that all are compared with, instead of the best. test: wilcoxon or
    sign. higher: whether more of y is better, where fedzo does not know.

    >>> import fedzo
    >>> print(fedzo.table("runs/both", y="value", at="queries=100"))
    value at 100 queries (lower is better)
    method  seeds  mean  s.e.  difference  s.e.  won  lost  tied    p  holm
    -----------------------------------------------------------------------
    fast        2   2.5   0.5      (best)     -    -     -     -    -     -
    slow        2   4.5   0.5           2     0    0     2     0  0.5   0.5
    ...

    The result has to_latex(), to_markdown(), to_csv() and to_frame(). Raises ConfigError for what
    cannot be compared.
    """
    found = with_records(gather(runs))
    require_one_scenario(found)
    every = [record for some in found.values() for run in some for record in run.records]
    require_records(every)
    y = y or quantity_of(every)
    if y not in recorded(every):
        raise unknown_key(y, recorded(every), what="quantity")
    levels = [target] if isinstance(target, int | float) else list(target or [])
    positions = _positions([at] if isinstance(at, str) else at or ([] if levels else [END]))
    check_axes(x, {})
    if not all(map(math.isfinite, levels)):
        raise ConfigError(f"target={levels} must be finite numbers; leave out those that are not")
    _require_use(x, best, positions, levels)
    asked = _Asked(y, best, more_is_better(y, higher), baseline, test, [*of_runs(found)])
    panels = [_at(found, asked, axis, limit) for axis, limit in positions]
    return MethodsTable([*panels, *(_until(found, asked, level, x) for level in levels)])


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is compared, and how; remarks: what is so of the runs wherever they are looked at."""

    y: str
    best: bool
    higher: bool
    baseline: str | None
    test: str
    remarks: Sequence[str]

    @property
    def name(self) -> str:
        return self.y.replace("_", " ")


def _positions(texts: Sequence[str]) -> list[Position]:
    """Return axes and limits, each once; the end is without a limit."""
    found: list[Position] = []
    for text in texts:
        if text.strip() == END:
            found.append(("rounds", math.inf))
            continue
        if "=" not in text:
            raise ConfigError(
                f"--at {text!r} is neither `end` nor AXIS=N,N,...; write for example queries=5000"
            )
        given = parse_positions([text])
        check_axes(next(iter(given)), given)
        found += [(axis, limit) for axis, limits in given.items() for limit in limits]
    return list(dict.fromkeys(found))


def _require_use(
    x: str, best: bool, positions: Sequence[Position], levels: Sequence[float]
) -> None:
    """Raise ConfigError for an option that would do nothing."""
    if x != "queries" and not levels:
        raise ConfigError(f"x={x} is what a target is counted in; add a target, or leave x out")
    if best and not positions:
        raise ConfigError("best is for a position, and there is none; add at=end, or leave it out")


def _at(runs: Results, asked: _Asked, axis: str, limit: float) -> Panel:
    """Compare what methods have reached by a position."""
    values: Values = {
        label: {
            run.experiment.seed: value_at(
                run, asked.y, axis, limit, best=asked.best, higher=asked.higher
            )
            for run in some
        }
        for label, some in runs.items()
    }
    where = f"{limit:,.10g} {axis}"
    if math.isinf(limit):
        where = "the end"
        measure = f"best {asked.name}" if asked.best else f"{asked.name} at the end"
    else:
        measure = f"best {asked.name} within {where}" if asked.best else f"{asked.name} at {where}"
    remarks = [*asked.remarks, *of_missing(values), *of_infinite(values, "is infinite")]
    if asked.y == "value" and not asked.best:
        remarks += of_partial(runs, axis, limit, where)
    remarks += of_short(runs, axis, limit, where, "best" if asked.best else "last")
    return standings(
        measure,
        values,
        higher=asked.higher,
        baseline=asked.baseline,
        test=asked.test,
        remarks=remarks,
    )


def _until(runs: Results, asked: _Asked, level: float, x: str) -> Panel:
    """Compare what methods have spent until y first was at a level or beyond."""
    values: Values = {
        label: {run.experiment.seed: _spent(run, asked, level, x) for run in some}
        for label, some in runs.items()
    }
    way = "at least" if asked.higher else "at most"
    measure = f"{x} until {asked.name} is {way} {level:g}"
    if not any(math.isfinite(spent) for by_seed in values.values() for spent in by_seed.values()):
        raise ConfigError(
            f"no run tells {measure}; take a level that some run reaches, or another x"
        )
    ends = {
        label: {run.experiment.seed: run.last_records[-1].axis(x) for run in some}
        for label, some in runs.items()
    }
    return standings(
        measure,
        values,
        baseline=asked.baseline,
        test=asked.test,
        remarks=[*asked.remarks, *of_missing(values), *of_infinite(values, "does not get there")],
        ends=ends,
    )


def _spent(run: RunResult, asked: _Asked, level: float, x: str) -> float:
    if len(run.last_records) > 1:
        raise ConfigError(
            f"target={level:g} is for scenarios with one problem, and a run has"
            f" {len(run.last_records)}; take at"
        )
    record = reached(run.records, asked.y, level, window=1, higher=asked.higher)
    return math.inf if record is None else record.axis(x)
