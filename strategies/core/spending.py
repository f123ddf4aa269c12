"""What a private run has spent so far, on this problem and on those before it."""

import math
from dataclasses import dataclass, field, replace

from fedzo.privacy.accountant import Ledger
from strategies.core.rounds import StateT


@dataclass(frozen=True, slots=True)
class Spent:
    """What a private run has spent, and its last release: std of the noise, share of shortened.

    ledger, epsilon: of the problem at hand; before: what earlier problems have released to the same
    clients; epsilon_run: of all that, which the budget is for.
    """

    ledger: Ledger
    epsilon: float = 0.0
    noise_std: float = 0.0
    shortened: float | None = None
    before: Ledger = field(default_factory=Ledger.empty)
    epsilon_run: float = 0.0

    @property
    def whole(self) -> Ledger:
        """All releases of the run."""
        return self.before.joined(self.ledger)

    def without_noise(self) -> "Spent":
        """Return what a release without noise makes of it."""
        return replace(self, epsilon=math.inf, epsilon_run=math.inf)


def carried_on(fresh: StateT, before: Spent | None) -> StateT:
    """Return the first state of a problem, with all that was spent on the problems before it.

    The same clients answer, so everything that the run releases counts together.
    """
    if before is None:
        return fresh
    own = fresh.privacy  # type: ignore[attr-defined]
    spent = replace(own, before=before.whole, epsilon_run=before.epsilon_run)
    return replace(fresh, privacy=spent)  # type: ignore[type-var]
