"""Thompson sampling of the victim's gradient: every query is a complete attempt.

    g ~ posterior of the gradient given all changes of the loss so far (fedzo.surrogates.spatial)
    proposal = the best (linf: share of the) values of argmin_{delta in D} <g, delta>, the incumbent
               delta elsewhere;  accept if the loss falls;  row: (proposal - incumbent, change)
    share <- min(1, up share) if accepted, max(floor, down share) if not;       share = 1 at first

The prior says that neighboring pixels matter alike, so the first proposals are random blobs of the
ball's corners, and a few tens of answers tell which blobs to flip. fedzo's own: linear bandits
(Russo, Van Roy et al., "A Tutorial on Thompson Sampling", 2018, section 4) over the corners of
a ball, with the trust region of evolution strategies. Shapes: delta [d]. Cost: one query a step,
and one for the image itself.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Search, Task
from fedzo.attacks.coarse import GRID, coarsely
from fedzo.attacks.region import Region
from fedzo.config import check_types, require
from fedzo.surrogates.spatial import (
    Changes,
    SpatialPrior,
    add_change,
    no_changes,
    sample_gradient,
)
from fedzo.used_with import UsedWith, one_of

_REDRAWS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ThompsonConfig:
    """Settings of the surrogate and of the steps.

    lengthscale: of the prior, in pixels. noise: of a row, relative to its prior deviation. spread:
    of samples around the mean, 1 for the posterior's own. max_rows: newest rows that are kept.
    up, down, floor: how the share of values that a proposal may change follows success and failure.
    """

    lengthscale: float = 2.0
    noise: float = 0.1
    spread: float = 0.3
    max_rows: int = 200
    up: float = 1.5
    down: float = 0.95
    floor: float = 0.01

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("lengthscale", "spread"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, value, "0 or more, and finite")
        require(0 < self.noise < math.inf, "noise", self.noise, "positive and finite")
        require(self.max_rows >= 1, "max_rows", self.max_rows, "at least 1")
        require(self.up >= 1, "up", self.up, "at least 1")
        for name in ("down", "floor"):
            value = getattr(self, name)
            require(0 < value <= 1, name, value, "above 0, at most 1")


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The best perturbation so far, its loss, what was learned, and the share of the next step."""

    delta: Float[Tensor, " d"]
    loss: float
    rows: Changes
    share: float = 1.0


def propose(
    state: Incumbent,
    region: Region,
    prior: SpatialPrior,
    config: ThompsonConfig,
    *,
    generator: np.random.Generator,
) -> Float[Tensor, " d"]:
    """Return the next perturbation to ask for: another one than the incumbent, if there is any."""
    spread = config.spread
    for _ in range(_REDRAWS):
        gradient = sample_gradient(state.rows, prior, spread=spread, generator=generator)
        proposal = region.part_way(state.delta, gradient.to(state.delta), state.share)
        if not torch.equal(proposal, state.delta):
            break
        spread *= 2
    return proposal


def learn(
    state: Incumbent,
    proposal: Float[Tensor, " d"],
    loss: float,
    prior: SpatialPrior,
    config: ThompsonConfig,
) -> Incumbent:
    """Add what a proposal showed; a loss that is not finite teaches nothing but caution.

    Where the incumbent's own loss is not known, the first proposal with a loss takes its place.
    """
    if not math.isfinite(state.loss) and math.isfinite(loss):
        return replace(state, delta=proposal, loss=loss)
    rows, change = state.rows, loss - state.loss
    if math.isfinite(change):
        rows = add_change(
            rows,
            prior,
            proposal - state.delta,
            change,
            noise=config.noise,
            most=config.max_rows,
        )
    if change < 0:
        return Incumbent(proposal, loss, rows, min(1.0, config.up * state.share))
    return replace(state, rows=rows, share=max(config.floor, config.down * state.share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Thompson(ThompsonConfig):
    """The attacker `thompson`, for victims that tell scores.

    grid: most cells of a side; larger images are searched on a grid, and lengthscale is in cells.
    """

    grid: int = GRID
    USED_WITH: ClassVar[UsedWith] = {"grid": one_of("attack.norm", "linf", "l2")}

    def __post_init__(self) -> None:
        ThompsonConfig.__post_init__(self)
        require(self.grid >= 2, "grid", self.grid, "at least 2")

    def first_step(self, task: Task) -> int:
        """Return the image itself, and a proposal."""
        return 2

    def search(self, task: Task) -> Search:
        return coarsely(self._search, replace(task, starts=None), self.grid)

    def _search(self, task: Task) -> Search:
        region = task.region
        prior = SpatialPrior(region.shape, self.lengthscale)
        origin = torch.zeros_like(region.lower)
        reply = yield origin.unsqueeze(0)
        state = Incumbent(origin, float(reply.losses[0]), no_changes(region.dim))
        while True:
            proposal = propose(state, region, prior, self, generator=task.generator)
            reply = yield proposal.unsqueeze(0)
            state = learn(state, proposal, float(reply.losses[0]), prior, self)
