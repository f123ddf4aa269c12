"""Solve the problems of a run that are left, one after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedzo.errors import ConfigError, RunError
from fedzo.estimation.replay import start_of
from fedzo.objectives.problem import PlacedProblem
from fedzo.records.history import RoundRecord
from fedzo.records.run_log import LOGGER, RunLog
from fedzo.records.status import Limits
from fedzo.runtime.engine import Engine
from scenarios.problems.scenario import Scenario
from scenarios.runs.best import BestSoFar, position_of
from scenarios.runs.experiment import Experiment
from scenarios.runs.position import Found, Position
from scenarios.runs.run_result import RunResult
from scenarios.runs.rundir import RunDirectory
from scenarios.runs.steps import posed, watch
from strategies.core.base import RoundStrategy
from strategies.core.driver import (
    Callback,
    Outcome,
    RunSettings,
    Snapshot,
    StopReason,
    run_rounds,
)
from strategies.core.spending import Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run is made of. own: the data are the clients' own, and not public."""

    experiment: Experiment
    scenario: Scenario
    strategy: RoundStrategy[Any]
    engine: Engine
    own: bool
    directory: RunDirectory | None
    callbacks: Sequence[Callback]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What the problems that have ended gave."""

    records: Sequence[RoundRecord]
    found: Found
    spent: Spent | None

    def plus(
        self, records: Sequence[RoundRecord], end: Found, spent: Spent | None, stop: StopReason
    ) -> "_Done":
        """Add what one problem more gave; spent: by all of them."""
        held = self.found
        found = replace(
            held,
            solutions=[*held.solutions, *end.solutions],
            bests=[*held.bests, *end.bests],
            stops=[*held.stops, stop],
        )
        return _Done(records=[*self.records, *records], found=found, spent=spent)


def solve(work: Work, position: Position) -> RunResult:
    """Go on from a position to the end of the last problem, or until a callback stops the run."""
    found = replace(position.found, start=_start(work, position.found.start))
    log = _begun(work, position)
    done = _Done(records=position.records, found=found, spent=position.spent)
    standstill = watch(work.experiment)
    for index in range(len(done.found.solutions), work.scenario.num_problems):
        done = _with_problem(work, index, position, done, [standstill, log])
        position = Position()
        if done.found.stops[-1] == "callback":
            break
    LOGGER.info("%s: ended by %s", work.experiment.name, ", ".join(done.found.stops))
    lasts = {record.problem: record for record in done.records}
    return _result(work, done, work.scenario.summarize(list(lasts.values())))


def _start(work: Work, before: str) -> str:
    """Return a digest of where modules that are moved in place begin.

    Raises ConfigError where a run that goes on began elsewhere.
    """
    problem = posed(work.scenario, 0, work.experiment)
    if not isinstance(problem, PlacedProblem) or problem.module is None:
        return before
    start = start_of(problem.module)
    if before and start and start != before:
        raise ConfigError(
            f"the {type(problem.module).__name__} has other parameters than when this run began,"
            " and its log leads nowhere from there; make it by the same code from the same seed, or"
            " begin again in an empty directory"
        )
    return start


def _begun(work: Work, position: Position) -> Callback:
    """Say that the run begins, or goes on; returns what says how it stands."""
    made = work.experiment
    log = RunLog(made.name, Limits(made.num_rounds, made.query_budget))
    does = "goes on," if position.records else "begins"
    LOGGER.info("%s: %s on %s with %s clients", made.name, does, made.engine, made.num_clients)
    return lambda snapshot: log.tell(snapshot.record)


def _with_problem(
    work: Work, index: int, position: Position, done: _Done, watching: Sequence[Callback]
) -> _Done:
    work.engine.restore_client_states(position.client_states)
    best, seen = BestSoFar(position.best), _Seen()
    keep = _keeper(work, done.found, best)
    try:
        outcome = run_rounds(
            work.strategy,
            work.engine,
            posed(work.scenario, index, work.experiment),
            _settings(work, done.spent),
            callbacks=[best, seen, *keep, *work.callbacks, *watching],
            resume=position.snapshot,
        )
    except RunError as error:
        ends = Found([position_of(state) for state in seen.last], [best.best])
        if work.directory:
            work.directory.flush()
        error.result = _result(work, done.plus(seen.records, ends, done.spent, "failed"), {})
        raise
    return _closed(work, done, outcome, best)


def _settings(work: Work, spent: Spent | None) -> RunSettings:
    return RunSettings(
        num_clients=work.experiment.num_clients,
        num_rounds=work.experiment.num_rounds,
        seed=work.experiment.seed,
        query_budget=work.experiment.query_budget,
        num_problems=work.scenario.num_problems,
        spent=spent,
        public_data=not work.own,
        liars=work.experiment.known_liars,
    )


def _closed(work: Work, done: _Done, outcome: Outcome, best: BestSoFar) -> _Done:
    """Add a problem that has ended, in the directory too."""
    spent = getattr(outcome.state, "privacy", None)
    ends = Found([position_of(outcome.state)], [best.best])
    done = done.plus(outcome.records, ends, spent, outcome.stop)
    if work.directory:
        work.directory.close_problem(done.found, outcome.last, work.engine.client_states(), spent)
    return done


def _result(work: Work, done: _Done, metrics: Mapping[str, float]) -> RunResult:
    return RunResult(
        experiment=work.experiment,
        records=list(done.records),
        solutions=list(done.found.solutions),
        metrics=metrics,
        stops=list(done.found.stops),
        out=None if work.directory is None else work.directory.shown,
        spent=done.spent,
        bests=list(done.found.bests),
        start=done.found.start,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """Remembers what a run that fails has had: the records, and the last state."""

    records: list[RoundRecord] = field(default_factory=list)
    last: list[Any] = field(default_factory=list)

    def __call__(self, snapshot: Snapshot) -> None:
        self.records.append(snapshot.record)
        self.last[:] = [snapshot.state]


def _keeper(work: Work, found: Found, best: BestSoFar) -> list[Callback]:
    directory = work.directory
    if directory is None:
        return []

    def keep(snapshot: Snapshot) -> None:
        so_far = replace(found, bests=[*found.bests, best.best])
        directory.add(snapshot, so_far, work.engine.client_states())

    return [keep]
