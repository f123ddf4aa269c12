"""The driver: runs the rounds of any strategy on any engine.

It owns what all strategies share: cohort sampling by derived streams, the query budget, failed and
non-finite answers, evaluation, counting, the history and the snapshots for checkpoints.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fedzo.errors import ConfigError, RunError
from fedzo.finite import all_finite
from fedzo.objectives.problem import Problem
from fedzo.protocol.exchange import JUDGING_REST, Exchange, Replies
from fedzo.protocol.question import Question
from fedzo.protocol.wave import Landed, Wave
from fedzo.records.history import RoundRecord
from fedzo.records.virtual_time import VirtualTime
from fedzo.runtime.engine import Engine, HasClock, OpenEnded
from strategies.core import accounting, judging
from strategies.core.abilities import can
from strategies.core.addressing import Addressing
from strategies.core.bench import Bench
from strategies.core.cohorts import who_is_online
from strategies.core.judging import Verdict
from strategies.core.looks import Looks
from strategies.core.method import RoundMethod, defence_of
from strategies.core.outcome import Callback, Outcome, RunSettings, Snapshot, StopReason
from strategies.core.rounds import (
    IsInPlace,
    KnowsModels,
    PrivacySpent,
    Reports,
    RoundPlan,
    TooFewAnswers,
    undone,
)
from strategies.core.screening import rejected
from strategies.core.spending import carried_on
from strategies.core.waves import NO_CLOCK, require_some, usable

__all__ = ["Callback", "Outcome", "RunSettings", "Snapshot", "StopReason", "run_rounds"]


def run_rounds(
    strategy: RoundMethod[Any],
    engine: Engine,
    problem: Problem,
    settings: RunSettings,
    *,
    callbacks: Sequence[Callback] = (),
    resume: Snapshot | None = None,
) -> Outcome:
    """Run a strategy on one problem; with `resume`, go on after the round of that snapshot.

    Raises RunError when too few clients answer, or nobody in any round.
    """
    run = _Run(strategy, engine, problem, settings, callbacks, resume)
    try:
        run.go()
    except RunError as error:
        accounting.tell_unrecorded(error, run.last, run.total)
        raise
    accounting.require_any_answer(run.records, run.heard)
    return Outcome(run.snapshot, run.records)


class _Run:
    """The moving parts of one run."""

    def __init__(
        self,
        strategy: RoundMethod[Any],
        engine: Engine,
        problem: Problem,
        settings: RunSettings,
        callbacks: Sequence[Callback],
        resume: Snapshot | None,
    ) -> None:
        self._strategy, self._engine, self._problem = strategy, engine, problem
        self._settings, self._callbacks = settings, callbacks
        self.records: list[RoundRecord] = []
        self._resumed = resume.record if resume else None
        self._exchange_index, self._failed_rounds, self._judged = 0, 0, -1
        self._free = self.heard = self._landed = False
        self._planned: RoundPlan | None = None
        self.stop: StopReason | None = resume.stop if resume else None
        self._clock = time.perf_counter()
        self._defence = defence_of(strategy, settings.num_clients)
        self._address = Addressing(strategy, settings, problem)
        self._looks = Looks(strategy, settings, problem)
        self._bench = Bench(strategy, settings, problem)
        self._defence.require()
        if resume:
            self.state, self.total = resume.state, resume.record
            self.heard, self._failed_rounds = resume.heard, resume.failed
            return
        fresh = strategy.init(problem.initial_x, settings.num_clients)
        self.state = judging.begun(carried_on(fresh, settings.spent), problem)
        clock = VirtualTime() if can(engine, HasClock) else None
        self.total = RoundRecord(problem=problem.index, round_index=0, virtual=clock)

    @property
    def last(self) -> RoundRecord | None:
        """The record before the round that is under way."""
        return self.records[-1] if self.records else self._resumed

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.total, self.state, self.stop, self.heard, self._failed_rounds)

    def go(self) -> None:
        """Run rounds until something says stop; judge the first x, and the last if needed."""
        if self._resumed is None:
            self._close_round(judge=True)
        while self.stop is None:
            if self.total.round_index >= self._settings.num_rounds:
                self.stop = "rounds"
            else:
                self._run_round()
        unjudged = self.total.value is None and not self._looks.asks_nobody
        if self.records and unjudged and self._judged < self.total.round_index:
            self.total = accounting.opened(self.total, self.total.round_index)
            self._close_round(judge=True)

    def _run_round(self) -> None:
        """Run one round, or end the run when the budget does not allow a single step."""
        before, plan = self.total, self._plan()
        self._planned, self._landed = plan, False
        self.total = accounting.opened(before, plan.round_index)
        self._exchange_index, self._free = 0, False
        state = self._tried(plan)
        if self.stop is None and (self._settings.query_budget is None or not self._idle(before)):
            self.state = state
            self._close_round(judge=self._looks.due(plan.round_index))
            return
        self.stop = self.stop or "budget"
        self.state = undone(self.state, plan, self.total.failures)
        kept = {
            name: getattr(before, name)
            for name in ("value", "metrics", "judges", "partial", "nodes")
        }
        self.total = replace(self.total, round_index=before.round_index, **kept)
        self._close_round(judge=before.value is None)

    def _plan(self) -> RoundPlan:
        due = self._looks.due(self.total.round_index + 1)
        online = who_is_online(self._engine, self.total.virtual)
        return self._address.plan(self.state, self.total, judged=due, online=online)

    def _tried(self, plan: RoundPlan) -> Any:
        """Return the state after the round, or that before if too few answered and that may be."""
        try:
            state = self._exchange_all(plan)
        except PrivacySpent as error:
            if plan.round_index == 1 and self._settings.spent is None:
                raise ConfigError(f"the first round would spend {error}") from error
            self.stop = "privacy"
            return undone(self.state, plan, self.total.failures)
        except TooFewAnswers as error:
            self._failed_rounds += 1
            if self._failed_rounds > self._strategy.rounds.max_failed_rounds:
                raise
            time.sleep(error.rest_s)
            return undone(self.state, plan, self.total.failures)
        self._failed_rounds = 0
        if not all_finite(state.log if can(state, IsInPlace) else state.x):
            raise RunError(
                f"round {plan.round_index} ended in an x that is not finite; lower the step size,"
                " or set strategy.non_finite=reject"
            )
        return state

    def _exchange_all(self, plan: RoundPlan) -> Any:
        """Drive the strategy's generator through its exchanges and return the next state."""
        steps, told = self._strategy.round(self.state, plan), None
        try:
            while True:
                told = self._answered(steps.send(told))
        except StopIteration as end:
            return end.value

    def _answered(self, wanted: list[Exchange] | Wave) -> list[Replies] | Landed:
        if isinstance(wanted, Wave):
            return self._fly(wanted)
        return self._perform(wanted, self._reserve())

    def _perform(self, wanted: Sequence[Exchange], reserve: int) -> list[Replies]:
        rounds = self._strategy.rounds
        place = (self.total, self._exchange_index, reserve, self._planned)
        exchanges = [self._address.exchange(exchange, wanted, *place) for exchange in wanted]
        self._exchange_index += 1
        received = self._engine.perform(exchanges, timeout_s=rounds.timeout_s)
        self.total = accounting.with_time(self.total, self._engine)
        accepted = self._accept(exchanges, received)
        answered = zip(exchanges, accepted, strict=True)
        self._free |= any(e.question.is_free and len(r.client_ids) for e, r in answered)
        accounting.require_answers(exchanges, accepted, rounds.min_answers, self.total.round_index)
        return accepted

    def _fly(self, wanted: Wave) -> Landed:
        """Return what lands in a wave; all that its clients begin is counted at once."""
        engine, rounds = self._engine, self._strategy.rounds
        if not can(engine, OpenEnded):
            raise ConfigError(NO_CLOCK)
        told = self._address.wave(wanted, self.total, self._exchange_index, self._reserve())
        self._exchange_index += 1
        landed = engine.wave(told, timeout_s=rounds.timeout_s)
        self.total = accounting.with_time(self.total, engine)
        for exchange, replies in landed.began:
            self.total = accounting.counted(self.total, exchange, replies, {}, ledger=False)
        kept = usable(told.question, landed, rounds, self._defence)
        self._landed |= len(kept.clients) > 0
        self.heard |= self._landed
        self.total = replace(self.total, failures={**self.total.failures, **kept.failures})
        if not len(kept.clients):
            require_some(kept, told, self.total.round_index)
            self.stop = "budget"
        return kept

    def _accept(self, exchanges: Sequence[Exchange], received: Sequence[Replies]) -> list[Replies]:
        """Count what came, rejected or not, and return what can be used."""
        wrong = rejected(exchanges, received, self._strategy.rounds, self._defence)
        accepted = []
        for exchange, replies in zip(exchanges, received, strict=True):
            own = {c: reason for c, reason in wrong.items() if c in replies.client_ids}
            accepted.append(replies.without(own))
            self.heard |= exchange.question.moves and len(replies.client_ids) > 0
            self.total = accounting.counted(self.total, exchange, replies, accepted[-1].failures)
        return accepted

    def _idle(self, before: RoundRecord) -> bool:
        """Return whether a round asked nothing: the budget is too small for one more step."""
        now = self.total
        asked = now.queries > before.queries or now.gradients > before.gradients
        answered = now.clients_answered > 0 and not self._free
        return not (asked or self._landed) and (answered or self._address.left(self.total) < 1)

    def _close_round(self, *, judge: bool) -> None:
        """Judge x if that is due, write the record, and call back."""
        if judge and not self._looks.asks_nobody:
            self._judge()
        before, self._clock = self._clock, time.perf_counter()
        passed = replace(self.total, wall_s=self.total.wall_s + self._clock - before)
        self.total = accounting.with_privacy(passed, self.state)
        self.records.append(self.total)
        if any([callback(self.snapshot) for callback in self._callbacks]) and self.stop is None:
            self.stop = "callback"

    def _judge(self) -> None:
        """Write down F; where too few answer, leave it out, except at the start."""
        self._judged = self.total.round_index
        try:
            found = self._evaluate()
        except TooFewAnswers:
            if self.total.round_index == 0:
                raise
            return
        measured = self.state.report if can(self.state, Reports) else {}
        self.total = replace(
            self.total,
            value=found.value,
            metrics={**found.metrics, **measured},
            nodes=found.nodes,
            judges=found.judges,
            partial=found.partial,
        )
        self.stop = "solved" if found.solved and not found.partial else self.stop

    def _reserve(self) -> int:
        """Return the queries kept back so that the last x can be judged."""
        asked = self._looks.judges(self.total.round_index) if self._looks.asks_clients else ()
        return len(asked) * (self._settings.num_clients if can(self.state, KnowsModels) else 1)

    def _evaluate(self) -> Verdict:
        """Judge x, or, where every node has a model, those of the honest ones."""
        judges = self._looks.judges(self.total.round_index)
        found = self._bench.judge(self.state, judges, self._ask_judges, self._failing)
        if found.partial and not any(record.partial for record in self.records):
            judging.warn_of_partial(self.total.round_index, found.answered, found.least)
        return found

    def _ask_judges(self, question: Question[Any], clients: Sequence[int], index: int) -> Replies:
        self._exchange_index, rest = index, index == JUDGING_REST
        exchange = Exchange(question=question, client_ids=clients, optional=rest)
        [replies] = self._perform([exchange], 0)
        return replies

    def _failing(self, asked: Sequence[int]) -> int:
        before = self.last
        known = judging.known_to_fail(before, self.total, asked) if before else 0
        if before is None or not known:
            return 0
        return min(known, self._bench.missing(before, self._looks.judges(before.round_index)))
