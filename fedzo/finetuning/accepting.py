"""Whether a step is taken, and how long it is.

    always          lr
    BestOfThree     the best of x, x - lr g and x + lr g by the same loss           3 more asks
    LineSearch      the best of x - lr gamma^j g, j < l, and x                      l + 1 more asks

Zhang et al., "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A
Benchmark", ICML 2024 (conservative); Tang, Rybin & Chang, "Zeroth-Order Optimization Meets Human
Feedback", ICLR 2024, algorithm 2 (line search by rank). Candidates are asked where they are, x is
not moved meanwhile, so a step that is refused leaves nothing to undo. Values decide by their order
alone. Differs from the conservative code: x itself is asked anew where the step has not asked it.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fedzo.estimation.estimate import Estimate
from fedzo.estimation.in_place import InPlace


@runtime_checkable
class Acceptance(Protocol):
    """Chooses how far to go."""

    def factor(self, place: InPlace, estimate: Estimate, lr: float) -> float:
        """Return the multiple of lr that the step goes; 0: x stays."""
        ...


class Always:
    """Every step is taken."""

    def factor(self, place: InPlace, estimate: Estimate, lr: float) -> float:
        return 1.0


class BestOfThree:
    """Forward, back or nowhere."""

    def factor(self, place: InPlace, estimate: Estimate, lr: float) -> float:
        return best_factor(place, estimate, lr, [1.0, -1.0])


@dataclass(frozen=True, slots=True)
class LineSearch:
    """Shorter and shorter steps, or none."""

    gamma: float = 0.5
    trials: int = 4

    def factor(self, place: InPlace, estimate: Estimate, lr: float) -> float:
        return best_factor(place, estimate, lr, [self.gamma**j for j in range(self.trials)])


def best_factor(place: InPlace, estimate: Estimate, lr: float, factors: list[float]) -> float:
    """Return which of the factors, or 0, leads to the least value; 0 where nothing is finite."""
    tried = [0.0, *factors]
    values = place.asked_at([estimate.terms(-lr * factor) if factor else [] for factor in tried])
    ordered = [value if math.isfinite(value) else math.inf for value in values]
    return tried[min(range(len(tried)), key=ordered.__getitem__)]
