"""Square attack with a shared seed: random search by squares of the image plane.

    x' = x with a random square of side h set to the lower or the upper end of the box
    x <- x' if mean_i f_i(x') < mean_i f_i(x);   h^2 / d follows a falling schedule

Andriushchenko, Croce, Flammarion & Hein, "Square Attack: a query-efficient black-box adversarial
attack via random search", ECCV 2020, algorithms 1 and 2 (Linf); the start is vertical stripes of
random ends. Shapes: x [d], d a square number. Queries: 1 a client and round, and the start once.
Floats a client and round: 1 up, d down (the squares could be made from a seed, were all clients
sure to be asked every round).

Differs from the paper: the objective is the mean of all clients (or what `strategy.aggregator`
makes of their changes), so one number of each decides; the schedule is that of the paper for 10,000
iterations, scaled to `horizon` proposals.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attackers.square import recolored, square_side, stripes
from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.parts import composed, part
from fedzo.protocol.questions.values import ValuesConfig
from fedzo.randomness import stream
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import RobustConfig
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.search.comparison import Answered, compare, finite_box, nobody


@composed
class SquareConfig:
    """Settings: area is the first share of the image a square covers, halved along the horizon."""

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    area: float = 0.1
    horizon: int = 10000

    def __post_init__(self) -> None:
        require(0 < self.area <= 1, "area", self.area, "in (0, 1]")
        require(self.horizon >= 1, "horizon", self.horizon, "at least 1")


@dataclass(frozen=True, slots=True)
class SquareState:
    """The best x, and what clients answered there."""

    x: Float[Tensor, " d"]
    answered: Answered


class Square(ConfiguredStrategy[SquareConfig, ValuesConfig, SquareState]):
    """Random search by squares, all clients asked at the same proposal."""

    client_config = ValuesConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> SquareState:
        side = math.isqrt(len(x))
        if side * side != len(x):
            raise ConfigError(
                f"strategy square needs an image: dim={len(x)} must be a square number; use"
                " another strategy"
            )
        return SquareState(x, nobody(x))

    def round(self, state: SquareState, plan: RoundPlan) -> Round[SquareState]:
        proposal, first = self._propose(state, plan), plan.round_index == 1
        compared = yield from compare(state.x, proposal, state.answered, plan, blind=first)
        if compared is None:
            return state
        if first or compared.change(self.robust, plan) < 0:
            return SquareState(proposal, compared.new)
        return SquareState(state.x, compared.old)

    def _propose(self, state: SquareState, plan: RoundPlan) -> Float[Tensor, " d"]:
        """Return the stripes of the first round, or x with one square changed."""
        config, side = self._config, math.isqrt(len(state.x))
        lower, upper = finite_box(state.x, plan, "square")
        generator = stream(plan.seed, "square", plan.problem, plan.round_index)
        shape = (1, side, side)
        if plan.round_index == 1:
            return stripes(lower, upper, shape, generator=generator)
        h = square_side(plan.round_index / config.horizon, config.area, side)
        return recolored(state.x, lower, upper, shape, h, generator=generator)
