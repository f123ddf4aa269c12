"""Square attack with a shared seed: random search by squares of the image plane.

    x' = x with a random square of side h set to the lower or the upper end of the box
    x <- x' if mean_i f_i(x') < mean_i f_i(x);   h^2 / d follows a falling schedule

Andriushchenko, Croce, Flammarion & Hein, "Square Attack: a query-efficient black-box adversarial
attack via random search", ECCV 2020, algorithms 1 and 2 (Linf); the start is vertical stripes of
random ends. Shapes: x [d], d a square number. Queries: 1 a client and round, and the start once.
Floats a client and round: 1 up, d down (the squares could be made from a seed, were all clients
sure to be asked every round).

Differs from the paper: the objective is the mean of all clients, so one number of each decides; the
schedule is that of the paper for 10,000 iterations, scaled to `horizon` proposals.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.config import Scalar, require
from fedzo.errors import ConfigError
from fedzo.exchange import Exchange
from fedzo.randomness import stream
from strategies.base import RoundStrategy
from strategies.rounds import Round, RoundConfig, RoundPlan

HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the horizon at which the area of the squares is halved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareConfig(RoundConfig):
    """Settings: area is the first share of the image a square covers, halved along the horizon."""

    area: float = 0.1
    horizon: int = 10000

    def __post_init__(self) -> None:
        RoundConfig.__post_init__(self)
        require(0 < self.area <= 1, "area", self.area, "in (0, 1]")
        require(self.horizon >= 1, "horizon", self.horizon, "at least 1")


@dataclass(frozen=True, slots=True)
class SquareState:
    """The best x, and what clients answered there; nobody before the first round."""

    x: Float[Tensor, " d"]
    clients: Int[Tensor, " k"]
    values: Float[Tensor, " k"]

    @property
    def answers(self) -> Mapping[int, float]:
        """What clients have answered at x."""
        return dict(zip(self.clients.tolist(), self.values.tolist(), strict=True))


class Square(RoundStrategy[SquareState]):
    """Random search by squares, all clients asked at the same proposal."""

    def __init__(
        self,
        config: SquareConfig,
        *,
        rule: str = "values",
        client_config: Mapping[str, Scalar] | None = None,
    ) -> None:
        self._config = config

    @property
    def rounds(self) -> RoundConfig:
        return self._config

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> SquareState:
        side = math.isqrt(len(x))
        if side * side != len(x):
            raise ConfigError(
                f"strategy square needs an image: dim={len(x)} must be a square number; use"
                " another strategy"
            )
        return SquareState(x, torch.empty(0, dtype=torch.int64), x.new_empty(0))

    def round(self, state: SquareState, plan: RoundPlan) -> Round[SquareState]:
        proposal = self._propose(state, plan)
        known = torch.equal(state.clients, torch.as_tensor(plan.cohort))
        first = plan.round_index == 1
        points = [proposal] if known or first else [state.x, proposal]
        [replies] = yield [
            Exchange(
                kind="query.value",
                client_ids=plan.cohort,
                shared={"x": torch.stack(points)},
                expects={"values": [(len(points),), (0,)]},
            )
        ]
        values, clients = replies.tensors["values"], torch.as_tensor(replies.client_ids)
        if values.shape[1] == 0:
            return state
        old = state.values[torch.isin(state.clients, clients)] if known else values[:, 0]
        if first or values[:, -1].mean() < old.mean():
            return SquareState(proposal, clients, values[:, -1])
        return SquareState(state.x, clients, old)

    def _propose(self, state: SquareState, plan: RoundPlan) -> Float[Tensor, " d"]:
        """Return the stripes of the first round, or x with one square changed."""
        x = state.x.clone()
        side = math.isqrt(len(x))
        if not all(torch.as_tensor(bound).isfinite().all() for bound in (plan.lower, plan.upper)):
            raise ConfigError(
                f"strategy square needs a bounded box, got [{plan.lower}, {plan.upper}]; give the"
                " objectives finite bounds or use another strategy"
            )
        lower = torch.as_tensor(plan.lower).to(x).expand_as(x).reshape(side, side)
        upper = torch.as_tensor(plan.upper).to(x).expand_as(x).reshape(side, side)
        generator = stream(plan.seed, "square", plan.problem, plan.round_index)
        plane = x.reshape(side, side)
        if plan.round_index == 1:
            ends = torch.from_numpy(generator.integers(0, 2, side)).bool()
            return torch.where(ends, upper, lower).reshape(-1)
        h = self._side(plan.round_index, side)
        top, left = generator.integers(0, side - h + 1, 2)
        window = (slice(top, top + h), slice(left, left + h))
        plane[window] = (upper if generator.integers(0, 2) else lower)[window]
        return x

    def _side(self, round_index: int, side: int) -> int:
        """Return h for a round: at least 1, below the image's side."""
        passed = sum(round_index > share * self._config.horizon for share in HALVINGS)
        area = self._config.area / 2**passed
        return int(np.clip(round(math.sqrt(area) * side), 1, max(1, side - 1)))
