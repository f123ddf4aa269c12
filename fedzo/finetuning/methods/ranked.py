"""Methods for which only the order of values counts, or their shares: ranks, consensus, fitness.

Each class names its paper; fedzo.finetuning.shaping tells the formulas.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fedzo.estimation.view import View
from fedzo.finetuning.accepting import LineSearch
from fedzo.finetuning.finding import ByValues
from fedzo.finetuning.methods.method import (
    AT_LEAST_1,
    AT_LEAST_2,
    NOT_NEGATIVE,
    POSITIVE,
    Allowed,
    Method,
    Recipe,
)
from fedzo.finetuning.samplers import Keyed
from fedzo.finetuning.shaping import Fitness, Ranking, Shaped, Softmax


@dataclass(frozen=True, slots=True, kw_only=True)
class ZORankSGD(Method):
    """Tang, Rybin & Chang, "Zeroth-Order Optimization Meets Human Feedback", ICLR 2024, algorithms
    1 and 2: a ranking of the best `best` of m values (0: of all), and a line search of `trials`.
    """

    mu: float = 2.0**-7
    num_directions: int = 8
    best: int = 0
    trials: int = 4

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {
        "num_directions": AT_LEAST_2,
        "best": NOT_NEGATIVE,
        "trials": AT_LEAST_1,
    }

    def recipe(self, view: View, seed: int) -> Recipe:
        finder = _shaped(self, seed, Ranking(self.best or None))
        return Recipe(finder=finder, acceptance=LineSearch(trials=self.trials))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusHopping(Method):
    """Riedl, Klock, Geldhauser & Fornasier, "Gradient is All You Need?", 2023, consensus hopping:
    x goes to the mean of m points x + mu u weighed by exp(-alpha f), less mu times the plain mean
    of the u; that is lr = alpha mu^2 here.
    """

    mu: float = 2.0**-7
    num_directions: int = 16
    alpha: float = 1.0

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"num_directions": AT_LEAST_2, "alpha": POSITIVE}

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(finder=_shaped(self, seed, Softmax(self.alpha)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionStrategy(Method):
    """Salimans et al., "Evolution Strategies as a Scalable Alternative to Reinforcement Learning",
    2017: centered ranks of m values.
    """

    mu: float = 2.0**-7
    num_directions: int = 16

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"num_directions": AT_LEAST_2}

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(finder=_shaped(self, seed, Fitness()))


def _shaped(method: Method, seed: int, scheme: Shaped) -> ByValues:
    return ByValues(Keyed(seed, "gaussian"), scheme, method.mu, method.num_directions)
