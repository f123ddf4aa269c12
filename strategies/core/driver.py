"""The driver: runs the rounds of any strategy on any engine.

It owns what all strategies share: cohort sampling by derived streams, the query budget, failed and
non-finite answers, evaluation, counting, the history and the snapshots for checkpoints.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from fedzo.errors import RunError
from fedzo.finite import all_finite
from fedzo.objectives.problem import Problem
from fedzo.protocol.exchange import JUDGING, Exchange, Moment, Replies
from fedzo.records.history import RoundRecord
from fedzo.records.virtual_time import VirtualTime
from fedzo.runtime.engine import Engine, HasClock
from strategies.core import accounting, judging
from strategies.core.abilities import can
from strategies.core.cohorts import Online, sample_cohort
from strategies.core.judging import Verdict, trusted_values, verdict
from strategies.core.method import RoundMethod, defence_of
from strategies.core.outcome import Callback, Outcome, RunSettings, Snapshot, StopReason
from strategies.core.rounds import (
    IsInPlace,
    KnowsAnswers,
    KnowsModels,
    PrivacySpent,
    Reports,
    RoundPlan,
    TooFewAnswers,
)
from strategies.core.screening import rejected
from strategies.core.spending import carried_on

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
    run.go()
    assert run.stop is not None
    accounting.require_any_answer(run.records, run.heard)
    return Outcome(run.state, run.records, run.stop)


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
        self._free = self.heard = False
        self.stop: StopReason | None = resume.stop if resume else None
        self._clock = time.perf_counter()
        self._defence = defence_of(strategy, settings.num_clients)
        self._judges = judging.judges_of(strategy.rounds, settings, problem.index)
        self._defence.require()
        if resume:
            self.state, self._total = resume.state, resume.record
            return
        fresh = strategy.init(problem.initial_x, settings.num_clients)
        self.state = carried_on(fresh, settings.spent)
        clock = VirtualTime() if can(engine, HasClock) else None
        self._total = RoundRecord(problem=problem.index, round_index=0, virtual=clock)
        self._close_round(judge=True)

    def go(self) -> None:
        """Run rounds until something says stop; judge the last x if nobody has."""
        while self.stop is None:
            if self._total.round_index >= self._settings.num_rounds:
                self.stop = "rounds"
            else:
                self._run_round()
        unjudged = self._total.value is None and not self._asks_nobody
        if self.records and unjudged and self._judged < self._total.round_index:
            self._total = accounting.opened(self._total, self._total.round_index)
            self._close_round(judge=True)

    def _run_round(self) -> None:
        """Run one round, or end the run when the budget does not allow a single step."""
        before, plan = self._total, self._plan()
        self._total = accounting.opened(before, plan.round_index)
        self._exchange_index = 0
        self._free = False
        state = self._tried(plan)
        limited = self._settings.query_budget is not None
        if self.stop is None and not (limited and self._idle(before)):
            self.state = state
            self._close_round(judge=self._evaluation_due(plan.round_index))
            return
        self.stop = self.stop or "budget"
        kept = {
            name: getattr(before, name)
            for name in ("value", "metrics", "judges", "partial", "nodes")
        }
        self._total = replace(self._total, round_index=before.round_index, **kept)
        self._close_round(judge=before.value is None)

    def _plan(self) -> RoundPlan:
        round_index = self._total.round_index + 1
        clients = self._settings.num_clients
        key = {"seed": self._settings.seed, "problem": self._problem.index}
        return RoundPlan(
            round_index=round_index,
            num_rounds=self._settings.num_rounds,
            num_clients=clients,
            num_problems=self._settings.num_problems,
            cohort=sample_cohort(
                self._strategy,
                self.state,
                clients,
                round_index=round_index,
                online=self._online(),
                **key,
            ),
            **key,
            judged=self._evaluation_due(round_index),
            image=getattr(self._problem, "image", None),
            lower=self._problem.lower,
            upper=self._problem.upper,
        )

    def _online(self) -> Online | None:
        """Return what says who can be reached now, where a clock knows."""
        engine, clock = self._engine, self._total.virtual
        if clock is None or not can(engine, HasClock):
            return None
        return lambda ids: engine.online(ids, clock.seconds)

    def _tried(self, plan: RoundPlan) -> Any:
        """Return the state after the round, or the old one if too few answered and that may be."""
        try:
            state = self._exchange_all(plan)
        except PrivacySpent:
            self.stop = "privacy"
            return self.state
        except TooFewAnswers:
            self._failed_rounds += 1
            if self._failed_rounds > self._strategy.rounds.max_failed_rounds:
                raise
            return self.state
        self._failed_rounds = 0
        if not all_finite(state.log if can(state, IsInPlace) else state.x):
            raise RunError(
                f"round {plan.round_index} ended in an x that is not finite; lower the step size,"
                " or set strategy.non_finite=reject"
            )
        return state

    def _exchange_all(self, plan: RoundPlan) -> Any:
        """Drive the strategy's generator through its exchanges and return the next state."""
        steps = self._strategy.round(self.state, plan)
        try:
            wanted = next(steps)
            while True:
                wanted = steps.send(self._perform(wanted, self._reserve()))
        except StopIteration as end:
            return end.value

    def _perform(self, wanted: Sequence[Exchange], reserve: int) -> list[Replies]:
        exchanges = [self._addressed(exchange, wanted, reserve) for exchange in wanted]
        timeout_s = self._strategy.rounds.timeout_s
        self._exchange_index += 1
        received = self._engine.perform(exchanges, timeout_s=timeout_s)
        self._total = accounting.with_time(self._total, self._engine)
        accepted = self._accept(exchanges, received)
        answered = zip(exchanges, accepted, strict=True)
        self._free |= any(e.question.is_free and len(r.client_ids) for e, r in answered)
        least = self._strategy.rounds.min_answers
        accounting.require_answers(exchanges, accepted, least, self._total.round_index)
        return accepted

    def _accept(self, exchanges: Sequence[Exchange], received: Sequence[Replies]) -> list[Replies]:
        """Count what came, rejected or not, and return what can be used."""
        wrong = rejected(exchanges, received, self._strategy.rounds, self._defence)
        accepted = []
        for exchange, replies in zip(exchanges, received, strict=True):
            own = {c: reason for c, reason in wrong.items() if c in replies.client_ids}
            accepted.append(replies.without(own))
            self.heard |= not exchange.question.judges and len(replies.client_ids) > 0
            self._total = accounting.counted(self._total, exchange, replies, accepted[-1].failures)
        return accepted

    def _addressed(
        self, exchange: Exchange, together: Sequence[Exchange], reserve: int
    ) -> Exchange:
        """Add what every client must know: the seed, the round, the problem, and its budget."""
        moment = Moment(self._problem.index, self._total.round_index, self._exchange_index)
        asked = max(1, sum(len(other.client_ids) for other in together))
        limited = self._settings.query_budget is not None
        budget = max(0, (self._left() - reserve) // asked) if limited else None
        clock = self._total.virtual
        return replace(
            exchange,
            moment=moment,
            seed=self._settings.seed,
            budget=budget,
            on_failure=self._strategy.on_failure,
            at_s=0.0 if clock is None else clock.seconds,
            enough=self._enough(exchange, asked),
        )

    def _enough(self, exchange: Exchange, asked: int) -> int:
        """Return after how many answers nobody else is waited for, where more were asked for it."""
        count = len(exchange.client_ids)
        over = self._strategy.rounds.over_selection
        if over == 1 or self._exchange_index == JUDGING:
            return 0
        wanted = self._strategy.rounds.cohort_size(self._settings.num_clients)
        return 0 if asked <= wanted else math.ceil(count * wanted / asked)

    def _left(self) -> int:
        """Return what is left of the query budget; without one, enough."""
        budget = self._settings.query_budget
        return 1 << 62 if budget is None else budget - self._total.queries

    def _idle(self, before: RoundRecord) -> bool:
        """Return whether a round asked nothing: the budget is too small for one more step."""
        now = self._total
        asked = now.queries > before.queries or now.gradients > before.gradients
        answered = now.clients_answered > 0 and not self._free
        return not asked and (answered or self._left() < 1)

    def _close_round(self, *, judge: bool) -> None:
        """Judge x if that is due, write the record, and call back."""
        if judge and not self._asks_nobody:
            self._judge()
        now = time.perf_counter()
        passed = replace(self._total, wall_s=self._total.wall_s + now - self._clock)
        self._total = accounting.with_privacy(passed, self.state)
        self._clock = now
        self.records.append(self._total)
        snapshot = Snapshot(self._total, self.state, self.stop)
        if any([callback(snapshot) for callback in self._callbacks]) and self.stop is None:
            self.stop = "callback"

    def _judge(self) -> None:
        """Write down F; where too few answer, leave it out, except at the start."""
        self._judged = self._total.round_index
        try:
            found = self._evaluate()
        except TooFewAnswers:
            if self._total.round_index == 0:
                raise
            return
        measured = self.state.report if can(self.state, Reports) else {}
        self._total = replace(
            self._total,
            value=found.value,
            metrics={**found.metrics, **measured},
            nodes=found.nodes,
        )
        self.stop = "solved" if found.solved and not self._total.partial else self.stop

    @property
    def _asks_nobody(self) -> bool:
        """Return whether x is never judged: what private data say of it would be a release."""
        privacy, told = self._strategy.privacy, self._settings.public_data
        claims = privacy is not None and privacy.claims
        public = told and not self._problem.asks_clients
        return claims and self._strategy.rounds.evaluate_every == 0 and not public

    def _evaluation_due(self, round_index: int) -> bool:
        every = self._strategy.rounds.evaluate_every
        if self._asks_nobody:
            return False
        if round_index in (0, self._settings.num_rounds):
            return True
        return every > 0 and round_index % every == 0

    def _reserve(self) -> int:
        """Return the queries kept back so that the last x can be judged."""
        asks = self._problem.asks_clients and not self._asks_nobody
        asked = len(self._judges(self._total.round_index)) if asks else 0
        return asked * (self._settings.num_clients if can(self.state, KnowsModels) else 1)

    def _evaluate(self) -> Verdict:
        """Judge x, or, where every node has a model, those of the honest ones."""
        liars = self._settings.liars
        unknown = self._strategy.robust.num_byzantine if liars is None else 0
        nodes, models = judging.judged_models(self.state, liars or frozenset(), unknown)
        if not self._problem.asks_clients:
            return judging.known(self._problem, self.state, nodes, models, self._settings.seed)
        asked = self._judges(self._total.round_index)
        known = self.state.answered.values if can(self.state, KnowsAnswers) else ()
        if len(known) == self._settings.num_clients and not liars:
            answers = torch.as_tensor(known, dtype=torch.float64).unsqueeze(1)
        else:
            self._exchange_index = JUDGING  # the same after a resume
            question = judging.question_about(self.state, models)
            [replies] = self._perform([Exchange(question=question, client_ids=asked)], 0)
            answers = replies.tensors["values"]
        if answers.shape[1] == 0:
            raise TooFewAnswers("nobody has answered a value to judge x by")
        kept = [trusted_values(values, unknown) for values in answers.T]
        before = self.records[-1] if self.records else self._resumed
        failing = judging.known_to_fail(before, self._total, asked)
        least = judging.required_judges(len(asked), failing, self._strategy.rounds.min_judges)
        partial = len(answers) + unknown < least
        if partial and not any(record.partial for record in self.records):
            judging.warn_of_partial(self._total.round_index, len(answers), least)
        self._total = replace(self._total, judges=len(kept[0]), partial=partial)
        reports = [self._problem.report(x, told) for x, told in zip(models, kept, strict=True)]
        found = verdict(nodes, models, reports)
        return judging.with_error(found, kept[0], len(asked), self._settings.num_clients)
