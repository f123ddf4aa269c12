"""When x is judged, and by whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedzo.objectives.problem import Problem
from strategies.core.judging import judges_of
from strategies.core.method import RoundMethod
from strategies.core.outcome import RunSettings


@dataclass(frozen=True)
class Looks:
    """The looks at x of one run of a strategy on one problem."""

    strategy: RoundMethod[Any]
    settings: RunSettings
    problem: Problem

    @cached_property
    def asks_nobody(self) -> bool:
        """Whether x is never judged: what private data say of it would be a release."""
        privacy, told = self.strategy.privacy, self.settings.public_data
        claims = privacy is not None and privacy.claims
        public = told and not self.problem.asks_clients
        return claims and self.strategy.rounds.evaluate_every == 0 and not public

    @cached_property
    def asks_clients(self) -> bool:
        """Whether clients are asked for F."""
        return self.problem.asks_clients and not self.asks_nobody

    def due(self, round_index: int) -> bool:
        """Return whether x is judged after a round."""
        every = self.strategy.rounds.evaluate_every
        if self.asks_nobody:
            return False
        if round_index in (0, self.settings.num_rounds):
            return True
        return every > 0 and round_index % every == 0

    def judges(self, round_index: int) -> Sequence[int]:
        """Return the clients that are asked for F after a round."""
        return judges_of(self.strategy.rounds, self.settings, self.problem.index)(round_index)
