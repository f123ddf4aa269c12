"""Thompson sampling by labels alone: the boundary says where the loss is zero.

    direction  a sample of the gradient's posterior, in a share of the values; else the incumbent's
    delta(rho) the best perturbation against it in the ball of radius rho
    ask        delta(0.97 rho*) for the least radius rho* known; on success the ball itself, then
               bisect between both for the new rho*
    rows       (delta at the boundary, -1) with small noise;  (failed delta, -1/2) with large noise
    after a fifth of the budget HopSkipJump in cosine waves goes on from the nearest success, or
    from one of the task's starts where there was none

On the boundary a loss that is linear with value 1 at the image has fallen by 1, which is what the
score attack of fedzo.attacks.attackers.thompson would have been told; a perturbation that fails has
made it fall by less, taken to be one half. fedzo's own; the search for the least radius with one
query a failure is that of Chen & Gu, "RayS: A Ray Searching Method for Hard-label Adversarial
Attack", KDD 2020. Shapes: delta [d]. Cost: one query a proposal that fails, five or so one that
does not.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Reply, Search, Task
from fedzo.attacks.attackers.hopskipjump import Asks, HopSkipJump, check_norm, first_start
from fedzo.attacks.attackers.thompson import ThompsonConfig
from fedzo.attacks.coarse import GRID, coarsely
from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.region import Region
from fedzo.config import require
from fedzo.surrogates.spatial import (
    Changes,
    SpatialPrior,
    add_change,
    no_changes,
    sample_gradient,
)
from fedzo.used_with import UsedWith, below

_FALLEN = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge(ThompsonConfig):
    """The attacker `edge`; settings as of ThompsonConfig, and:

    widest: radius at which the first success is looked for, in radii of the ball. tolerance:
    relative radius at which bisection ends. step: what a proposal must improve the radius to.
    failed, failed_noise: what failures teach. handover: share of the budget after which HopSkipJump
    goes on, in `waves` x `waves` cosine waves, from the nearest success. grid: as of thompson; an
    attack that is given images of its target goes in pixels.
    """

    lengthscale: float = 2.5
    noise: float = 0.2
    spread: float = 0.5
    floor: float = 0.02
    widest: float = 8.0
    tolerance: float = 0.02
    step: float = 0.97
    failed: float = -0.5
    failed_noise: float = 0.5
    handover: float = 0.2
    waves: int = 10
    grid: int = GRID
    USED_WITH: ClassVar[UsedWith] = {
        "waves": below("handover", 1),
    }

    def __post_init__(self) -> None:
        ThompsonConfig.__post_init__(self)
        require(1 < self.widest < math.inf, "widest", self.widest, "above 1, and finite")
        for name in ("tolerance", "step"):
            value = getattr(self, name)
            require(0 < value < 1, name, value, "between 0 and 1")
        require(-1 <= self.failed <= 0, "failed", self.failed, "from -1 to 0")
        require(self.failed_noise > 0, "failed_noise", self.failed_noise, "positive")
        require(0 <= self.handover <= 1, "handover", self.handover, "from 0 to 1")
        require(self.waves >= 1, "waves", self.waves, "at least 1")
        require(self.grid >= 2, "grid", self.grid, "at least 2")

    def search(self, task: Task) -> Search:
        return coarsely(self._search, task, self.grid)

    def _search(self, task: Task) -> Search:
        region = check_norm(task.region, "attacker edge")
        nearest = yield from self._sampled(task)
        count = min(self.waves, *region.shape[1:])
        waves = replace(task, coordinates=Coordinates("waves", count))
        yield from HopSkipJump().walk(nearest, waves)

    def _sampled(self, task: Task) -> Asks:
        """Return the nearest success when the share of the budget is spent, or the first later."""
        region, prior = task.region, SpatialPrior(task.region.shape, self.lengthscale)
        rows, share, spent = no_changes(region.dim), 1.0, 0
        radius, best = self.widest * region.radius, None
        unused = task.starts is not None
        while best is None or spent < self.handover * task.query_budget:
            if best is None and unused and spent >= self.handover * task.query_budget:
                unused, start = False, (yield from first_start(task))
                if start is not None:
                    return start
            sample = sample_gradient(rows, prior, spread=self.spread, generator=task.generator)
            u = _mixed(best, sample.to(region.lower), share, region)
            wanted = radius if best is None else max(region.radius, self.step * radius)
            delta = region.of_radius(wanted).toward(u)
            reply = yield delta.unsqueeze(0)
            spent += 1
            if not bool(reply.reached[0]):
                share = max(self.floor, self.down * share)
                rows = self._learn(rows, prior, delta, self.failed, self.failed_noise)
                continue
            best, share = u, min(1.0, self.up * share)
            radius, asked = yield from self._least_radius(u, wanted, region)
            spent += asked
            edge = region.of_radius(radius).toward(u)
            rows = self._learn(rows, prior, edge, _FALLEN, self.noise)
        return region.of_radius(radius).toward(best)

    def _least_radius(
        self, u: Float[Tensor, " d"], radius: float, region: Region
    ) -> Generator[Float[Tensor, "q d"], Reply, tuple[float, int]]:
        """Return the least radius at which the direction succeeds, and what that has cost."""
        yield region.toward(u).unsqueeze(0)
        low, asked = region.radius, 1
        while radius - low > self.tolerance * radius:
            middle = (low + radius) / 2
            reply = yield region.of_radius(middle).toward(u).unsqueeze(0)
            low, radius = (low, middle) if bool(reply.reached[0]) else (middle, radius)
            asked += 1
        return radius, asked

    def _learn(
        self,
        rows: Changes,
        prior: SpatialPrior,
        delta: Float[Tensor, " d"],
        change: float,
        noise: float,
    ) -> Changes:
        return add_change(rows, prior, delta, change, noise=noise, most=self.max_rows)


def _mixed(
    best: Float[Tensor, " d"] | None, sample: Float[Tensor, " d"], share: float, region: Region
) -> Float[Tensor, " d"]:
    """Return a direction that differs from the best one in a share of the sample's wishes."""
    if region.norm == "linf":
        signs = sample.sign()
        if best is None:
            return signs
        gain = torch.where(signs != best, sample.abs(), torch.zeros_like(sample))
        count = max(1, round(share * int((gain > 0).sum())))
        chosen = gain.topk(count).indices
        return best.index_copy(0, chosen, signs[chosen])
    unit: Tensor = torch.nn.functional.normalize(sample, dim=0)
    if best is None:
        return unit
    mixed: Tensor = torch.nn.functional.normalize((1 - share) * best + share * unit, dim=0)
    return mixed
