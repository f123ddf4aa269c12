"""Random search: uniform in the box, normal around the start where there is none.

    x ~ U(lower, upper);   coordinate without two bounds:  x ~ P(start + 0.3 N(0, 1))

The start is the first point. What every other method has to beat, and the face's own cost when it
is measured. Shapes: points [k, d]. Cost: as many points at a time as are evaluated at a time.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.blackbox.method import FIRST_SPREAD, Ground
from fedzo.objectives.box import project
from fedzo.randomness import stream


@dataclass(frozen=True, slots=True)
class RandomState:
    """How many points were drawn."""

    count: int


class RandomSearch:
    """The method `random`."""

    name = "random"
    ranks = True

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def init(self) -> RandomState:
        return RandomState(0)

    def propose(self, state: RandomState) -> tuple[RandomState, Float[Tensor, "k d"]]:
        ground = self._ground
        size = (ground.parallel, ground.dim)
        low, high = ground.lower.numpy(), ground.upper.numpy()
        drawn = stream(ground.seed, "random", state.count)
        free = ground.start.numpy() + FIRST_SPREAD * drawn.standard_normal(size)
        boxed = np.isfinite(low) & np.isfinite(high)
        inside = drawn.uniform(np.where(boxed, low, 0.0), np.where(boxed, high, 1.0), size)
        points = torch.from_numpy(np.where(boxed, inside, free))
        if state.count == 0:
            points[0] = ground.start
        return state, project(points, ground.lower, ground.upper)

    def absorb(
        self, state: RandomState, points: Float[Tensor, "k d"], values: Float[Tensor, " k"]
    ) -> RandomState:
        return RandomState(state.count + len(points))

    def around(self, state: RandomState) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        return self._ground.start, torch.full_like(self._ground.start, FIRST_SPREAD)

    def finished(self, state: RandomState) -> str:
        return ""
