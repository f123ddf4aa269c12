"""FedZO for one function: two-point estimates of the gradient, and Adam on them.

    g = (scale / m) sum_i [f(x + mu u_i) - f(x - mu u_i)] / (2 mu) u_i      (fedzo.estimation)
    x <- P(Adam(x, g)),   lr falls linearly to 0 over the budget where there is one

Fang, Yu, Jiang, Shi, Jones & Zhou, "Communication-Efficient Stochastic Zeroth-Order Optimization
for Federated Learning", IEEE Trans. Signal Processing 2022, algorithm 1, with one client. Shapes: x
[d], directions [m, d]. Cost: 2 m evaluations a step.

Differs from the paper: central differences along orthonormal directions, and Adam in place of plain
descent, because a function of somebody has no known scale. A direction of which one end has failed
is left out. In a box the ends are moved to its nearest points, and slopes are divided by 2 mu all
the same: those of coordinates on a bound come out halved.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.blackbox.method import Ground
from fedzo.config import check_types, require
from fedzo.estimation.directions import direction_scale, sample_directions
from fedzo.estimation.schemes import Differences, combine, gradient_coefficients
from fedzo.objectives.box import project
from fedzo.optimizers import OptimizerState, make_optimizer
from fedzo.randomness import stream

_ADAM = make_optimizer("adam")


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPointSettings:
    """Settings of `fedzo`; lr and mu (the length of a probe) in units of the box's width."""

    num_directions: int = 10
    lr: float = 0.02
    mu: float = 0.001

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        for name in ("lr", "mu"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPointState:
    """The iterate, Adam's moments, and what was evaluated."""

    x: Float[Tensor, " d"]
    moments: OptimizerState
    count: int = 0


class TwoPointSearch:
    """The method `fedzo`."""

    name = "fedzo"
    ranks = False

    def __init__(self, ground: Ground, settings: TwoPointSettings | None = None) -> None:
        self._ground, self._settings = ground, settings or TwoPointSettings()
        self._differences = Differences.named("central", self._settings.mu)
        wanted = max(self._settings.num_directions, -(-ground.parallel // 2))
        self._count = min(wanted, ground.dim)

    def init(self) -> TwoPointState:
        x = project(self._ground.start, self._ground.lower, self._ground.upper)
        return TwoPointState(x=x, moments=_ADAM.init(x))

    def propose(self, state: TwoPointState) -> tuple[TwoPointState, Float[Tensor, "k d"]]:
        if not state.count:
            return state, state.x.unsqueeze(0)
        ends = self._differences.points(state.x.unsqueeze(0), self._directions(state).unsqueeze(0))
        return state, project(ends[0], self._ground.lower, self._ground.upper)

    def absorb(
        self, state: TwoPointState, points: Float[Tensor, "k d"], values: Float[Tensor, " k"]
    ) -> TwoPointState:
        count = state.count + len(points)
        if not state.count:
            return replace(state, count=count)
        told = torch.where(values.isfinite(), values, torch.nan).unsqueeze(0)
        slopes = self._differences.slopes(told, torch.float64)
        scale = direction_scale("orthogonal", len(state.x))
        directions = self._directions(state).unsqueeze(0)
        gradient = combine(gradient_coefficients(slopes, scale), directions)[0]
        moments, x = _ADAM.step(state.moments, state.x, gradient, self._rate(state.count))
        x = project(x, self._ground.lower, self._ground.upper)
        return TwoPointState(x=x, moments=moments, count=count)

    def around(self, state: TwoPointState) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        spread = self._settings.mu / math.sqrt(len(state.x))
        return state.x, torch.full_like(state.x, spread)

    def finished(self, state: TwoPointState) -> str:
        return ""

    def _directions(self, state: TwoPointState) -> Float[Tensor, "m d"]:
        source = stream(self._ground.seed, "directions", state.count)
        return sample_directions("orthogonal", self._count, len(state.x), generator=source)

    def _rate(self, count: int) -> float:
        left = 1 - count / self._ground.budget if self._ground.budget else 1.0
        return self._settings.lr * max(left, 0.0)
