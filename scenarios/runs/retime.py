"""A finished run on another fleet: when its values would have been there, without running again.

Where nobody is late, lost or away, what a run computes does not depend on its fleet. Its ledger
says who was sent how much and what everybody has done, so the time of every exchange can be priced
anew, to the same numbers as a run with that fleet would have had.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from fedzo.config import Scalar, build_config, default_values
from fedzo.errors import ConfigError
from fedzo.fleet.config import FleetConfig
from fedzo.fleet.devices import Fleet
from fedzo.fleet.jobs import jobs_from
from fedzo.fleet.settling import settle
from fedzo.protocol.exchange import Moment
from fedzo.records.history import RoundRecord
from fedzo.records.virtual_time import VirtualTime
from fedzo.used_with import conditions_of, require_effective, unmet
from scenarios.runs.engines import make_fleet
from scenarios.runs.experiment import Experiment
from scenarios.runs.names import strategy_entry
from scenarios.runs.run_result import RunResult
from scenarios.runs.stored import StoredRun, load_run

_SECTION = "fleet."


def retime(
    run: StoredRun | RunResult | str | Path, fleet: str = "mobile", **settings: Scalar
) -> RunResult:
    """Return a run as it would have been on a fleet: the same values at other virtual times.

    run: a directory, or what load_run, simulate or federate returned. fleet: a preset; settings:
    those of the section fleet, such as query_s=0.05; of a run with a fleet the others are kept.

    Raises ConfigError where the time is not known: for a run or a fleet whose answers can be late
    or lost, which must be run anew, and for a history of a version that kept no ledger.

    >>> import fedzo
    >>> slow = fedzo.retime("runs/first", "nb-iot", query_s=0.05)
    >>> round(slow.virtual.seconds)
    1190
    """
    found = load_run(run).result if isinstance(run, str | Path) else run
    result = found.result if isinstance(found, StoredRun) else found
    experiment = with_fleet(result.experiment, fleet, settings)
    _require_alike(result.experiment, result.records)
    made = make_fleet(experiment)
    deadline_s = float(experiment.settings.get("strategy.timeout_s", math.inf))
    records = list(_retimed(result.records, made, deadline_s))
    return replace(result, experiment=experiment, records=records)


def with_fleet(experiment: Experiment, fleet: str, settings: Mapping[str, Scalar]) -> Experiment:
    """Return an experiment with another fleet; raises ConfigError for settings that are none."""
    require_fleets([fleet], settings)
    kept = {k: v for k, v in experiment.section("fleet").items() if k not in ("preset", "file")}
    own = {**_of_use(kept, {"preset": fleet, **settings}), "preset": fleet, **settings}
    config = build_config(FleetConfig, own, section="fleet")
    if not config.any:
        raise ConfigError("fleet none has no times; choose one of mobile, fedscale, 5g, silo, ...")
    require_effective(config, default_values(FleetConfig), section="fleet", beside={})
    others = {k: v for k, v in experiment.settings.items() if not k.startswith(_SECTION)}
    told = {f"{_SECTION}{name}": value for name, value in own.items()}
    return replace(experiment, settings={**others, **told})


def _of_use(kept: Mapping[str, Scalar], typed: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return those of a run's settings that have an effect beside the ones that are typed now."""
    conditions = conditions_of(FleetConfig, "fleet")
    told = {f"{_SECTION}{name}": value for name, value in {**kept, **typed}.items()}
    names = [name for name in kept if unmet(f"{_SECTION}{name}", told, conditions) is None]
    return {name: kept[name] for name in names}


def require_fleets(fleets: Sequence[str], settings: Mapping[str, Scalar]) -> None:
    """Raise ConfigError for fleets, with these settings, on which a run cannot be re-timed."""
    for fleet in fleets:
        if "preset" in settings:
            raise ConfigError(
                f"fleet.preset={settings['preset']} beside fleet {fleet}: name the fleet once"
            )
        wanted = build_config(FleetConfig, {**settings, "preset": fleet}, section="fleet")
        if wanted.loses:
            raise ConfigError(
                "on a fleet whose answers get lost, or whose devices are away, a run goes another"
                " way; run it anew with --set fleet.preset=..., or leave out drop_out, online and"
                " diurnal"
            )


def _require_alike(experiment: Experiment, records: Sequence[RoundRecord]) -> None:
    """Raise ConfigError where a run would have gone otherwise on another fleet, or on none."""
    name = f"the run {experiment.name}"
    require_retimable(experiment)
    if any(record.virtual is not None and record.virtual.wasted for record in records):
        raise ConfigError(f"{name} has lost answers, so it depends on its fleet; run it anew")
    if any(record.bytes_down for record in records) and not any(r.jobs for r in records):
        raise ConfigError(
            f"{name} has no ledger: it is of a version of fedzo that kept none; run it again"
        )


def require_retimable(experiment: Experiment) -> None:
    """Raise ConfigError for an experiment that goes another way on every fleet."""
    fleet: FleetConfig = experiment.config("fleet")
    entry = strategy_entry(experiment.strategy)
    goes_on = "fleet.preset" in {**entry.preset, **entry.refused}
    leaves_out = experiment.settings.get("strategy.over_selection", 1) != 1
    leaves_out |= "strategy.patience" in experiment.settings  # rounds end when enough have answered
    if goes_on or fleet.loses or leaves_out:
        why = "goes on while clients work" if goes_on else "may lose answers, or leave some out"
        raise ConfigError(
            f"the run {experiment.name} {why}, so it depends on its fleet and cannot be re-timed;"
            " run it anew with --set fleet.preset=..."
        )


def _retimed(
    records: Sequence[RoundRecord], fleet: Fleet, deadline_s: float
) -> Iterable[RoundRecord]:
    clock, before = VirtualTime(), None
    for record in records:
        if before is None or before.problem != record.problem:
            clock = VirtualTime()
        round_index = record.round_index
        if record.jobs and before is not None and before.round_index == round_index:
            round_index += 1  # the round that the budget has ended: it is told with the last one
        for _, together in groupby(record.jobs, key=lambda entry: entry.exchange_index):
            entries = list(together)
            moment = Moment(record.problem, round_index, entries[0].exchange_index)
            spent = [fleet.spent(jobs_from(entry), moment, free=True) for entry in entries]
            settled = settle(spent, deadline_s)
            if settled.took.wasted:
                raise ConfigError(
                    f"in round {round_index} an answer is missing, or takes longer than"
                    f" strategy.timeout_s={deadline_s:g}, so the run would have gone another way;"
                    " run it anew"
                )
            clock = clock + settled.took
        before = record
        yield replace(record, virtual=clock)
