"""What the driver adds to a question: seed, moment, budget, the clock, and whom it waits for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedzo.objectives.problem import Problem
from fedzo.protocol.exchange import Exchange, Moment
from fedzo.protocol.wave import Wave
from fedzo.records.history import RoundRecord
from strategies.core.cohorts import Online, sample_cohort, wanted_size
from strategies.core.method import RoundMethod
from strategies.core.outcome import RunSettings
from strategies.core.rounds import RoundPlan


@dataclass(frozen=True, slots=True)
class Addressing:
    """Addresses the questions of one run of a strategy on one problem."""

    strategy: RoundMethod[Any]
    settings: RunSettings
    problem: Problem

    def plan(
        self, state: object, total: RoundRecord, *, judged: bool, online: Online | None
    ) -> RoundPlan:
        """Return the plan of the round after a record."""
        settings, problem, round_index = self.settings, self.problem, total.round_index + 1
        return RoundPlan(
            round_index=round_index,
            num_rounds=settings.num_rounds,
            num_clients=settings.num_clients,
            num_problems=settings.num_problems,
            cohort=sample_cohort(
                self.strategy,
                state,
                settings.num_clients,
                seed=settings.seed,
                problem=problem.index,
                round_index=round_index,
                online=online,
            ),
            seed=settings.seed,
            problem=problem.index,
            wanted=wanted_size(self.strategy, state, settings.num_clients),
            judged=judged,
            image=getattr(problem, "image", None),
            lower=problem.lower,
            upper=problem.upper,
        )

    def left(self, total: RoundRecord) -> int:
        """Return what is left of the query budget; without one, enough."""
        budget = self.settings.query_budget
        return 1 << 62 if budget is None else budget - total.queries

    def exchange(
        self,
        exchange: Exchange,
        together: Sequence[Exchange],
        total: RoundRecord,
        index: int,
        reserve: int,
        plan: RoundPlan | None,
    ) -> Exchange:
        """Return an exchange, the `index`-th of its round, of those made at once.

        reserve: queries that are kept back. plan: of the round, None where x is judged outside one.
        """
        asked = max(1, sum(len(other.client_ids) for other in together))
        limited = self.settings.query_budget is not None
        moment = Moment(self.problem.index, total.round_index, index)
        return replace(
            exchange,
            moment=moment,
            seed=self.settings.seed,
            budget=max(0, (self.left(total) - reserve) // asked) if limited else None,
            on_failure=self.strategy.on_failure,
            at_s=_time(total),
            enough=0 if moment.is_judging else _enough(plan, together),
        )

    def wave(self, wanted: Wave, total: RoundRecord, index: int, reserve: int) -> Wave:
        """Return a wave, all of whose new jobs share what is left of the budget."""
        limited = self.settings.query_budget is not None
        return replace(
            wanted,
            num_clients=self.settings.num_clients,
            moment=Moment(self.problem.index, total.round_index, index),
            seed=self.settings.seed,
            at_s=_time(total),
            queries=max(0, self.left(total) - reserve) if limited else None,
            on_failure=self.strategy.on_failure,
        )


def _enough(plan: RoundPlan | None, together: Sequence[Exchange]) -> int:
    """Return after how many answers nobody else is waited for, where more were asked for it.

    Who asks others than the cohort, such as everybody, waits for all of them.
    """
    if plan is None or plan.wanted in (0, len(plan.cohort)):
        return 0
    asked = {client for exchange in together for client in exchange.client_ids}
    return plan.wanted if len(asked) > plan.wanted and asked <= {*plan.cohort} else 0


def _time(total: RoundRecord) -> float:
    """Return what the clock shows; 0 without one."""
    return 0.0 if total.virtual is None else total.virtual.seconds
