"""Who says what of a round's outcome: F by asking clients, or by what the simulation knows.

A goal, such as an attack's success, is reached where all clients say so, or `min_judges` of them:
where a sample, or those that have answered, do, the others are asked too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.objectives.problem import Problem
from fedzo.protocol.exchange import JUDGING, JUDGING_REST, Replies
from fedzo.protocol.question import Question
from fedzo.protocol.questions.values import ValuesTold
from fedzo.records.history import RoundRecord
from strategies.core.abilities import can
from strategies.core.judging import (
    Verdict,
    judged_models,
    question_about,
    required_judges,
    trusted_values,
    verdict,
    with_error,
)
from strategies.core.method import RoundMethod
from strategies.core.outcome import RunSettings
from strategies.core.rounds import HasX, KnowsAnswers, TooFewAnswers

Ask = Callable[[Question[ValuesTold], Sequence[int], int], Replies]
"""Asks clients, under an exchange index that is the same after a resume."""
Failing = Callable[[Sequence[int]], int]
"""How many of these clients are known to fail."""


@dataclass(frozen=True, slots=True)
class Told:
    """Which clients have judged, and what they say of x, or of each model [n, k]."""

    clients: Sequence[int]
    values: Float[Tensor, "n k"]

    def plus(self, replies: Replies) -> "Told":
        """Add what others have answered, if anybody has."""
        if not len(replies.client_ids):
            return self
        values = torch.cat([self.values, replies.tensors["values"].to(self.values)])
        clients = [*self.clients, *replies.client_ids]
        order = sorted(range(len(clients)), key=clients.__getitem__)
        return Told([clients[i] for i in order], values[order])


@dataclass(frozen=True, slots=True)
class Bench:
    """Judges the states of one run of a strategy on one problem."""

    strategy: RoundMethod[Any]
    settings: RunSettings
    problem: Problem

    def judge(self, state: HasX, judges: Sequence[int], ask: Ask, failing: Failing) -> Verdict:
        """Return what is said of x, or of the models of the honest nodes.

        judges: the clients that are asked. Raises TooFewAnswers where nobody answers.
        """
        liars = self.settings.liars
        nodes, models = judged_models(state, liars or frozenset(), self._unknown_liars)
        about = (self.problem, state, nodes, models, self.settings.seed)
        if not self.problem.asks_clients:
            return verdict(*about)

        def found(told: Told, asked: Sequence[int], failing: int) -> Verdict:
            kept = [trusted_values(values, self._unknown_liars) for values in told.values.T]
            least = required_judges(len(asked), failing, self.strategy.rounds.min_judges)
            answered = len(told.clients)
            said = replace(
                verdict(*about, kept),
                judges=len(kept[0]),
                answered=answered,
                least=least,
                partial=answered + self._unknown_liars < least,
            )
            return with_error(said, kept[0], len(asked), self.settings.num_clients)

        everybody = range(self.settings.num_clients)
        known = self._known_answers(state)
        if known is not None:
            return found(known, everybody, failing(everybody))
        question = question_about(state, models)
        replies = ask(question, judges, JUDGING)
        told = Told(replies.client_ids, replies.tensors["values"])
        if told.values.numel() == 0:
            raise TooFewAnswers("nobody has answered a value to judge x by")
        first = found(told, judges, failing(judges))
        if not first.solved or len(told.clients) == len(everybody):
            return first
        others = sorted({*everybody} - {*told.clients})
        return found(told.plus(ask(question, others, JUDGING_REST)), everybody, 0)

    def missing(self, record: RoundRecord, judges: Sequence[int]) -> int:
        """Return how many of the clients asked had not judged in a round; all where nobody was."""
        return max(0, len(judges) - record.judges - 2 * self._unknown_liars * (record.judges > 0))

    @property
    def _unknown_liars(self) -> int:
        return self.strategy.robust.num_byzantine if self.settings.liars is None else 0

    def _known_answers(self, state: HasX) -> Told | None:
        """Return what all clients have answered of x, if that judges it; None if not."""
        noisy, liars = getattr(self.problem, "noisy", False), self.settings.liars
        known = state.answered.values if can(state, KnowsAnswers) and not noisy else ()
        if len(known) != self.settings.num_clients or liars:
            return None
        values = torch.as_tensor(known, dtype=torch.float64).unsqueeze(1)
        return Told(range(self.settings.num_clients), values)
