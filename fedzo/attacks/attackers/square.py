"""Square attack: random search by squares of the image, each at an end of what is allowed.

    linf: delta' = delta with a random square of side h at one random end of the box in each channel
    l2:   delta' = delta with a random square refilled by two opposite bumps that take over its
          share of the norm, and that of another square, the rest of which becomes empty
    delta <- delta' if the loss falls;   h^2 / (height width) is halved along a schedule

Andriushchenko, Croce, Flammarion & Hein, "Square Attack: a query-efficient black-box adversarial
attack via random search", ECCV 2020, algorithms 1 and 2 (linf; the start is vertical stripes of
random ends), 1 and 3 (l2). The schedule is the paper's for 10,000 iterations, scaled to the budget.
l0, patch: the square has the values of fresh random ends, inside the pixels that are allowed.
Differs from the paper: a square that changes nothing is drawn anew, as in its code; norm l2 starts
from a grid of bumps whose side is a fifth of the image's, and channels share one norm.
Shapes: delta [d]. Cost: one query a proposal.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fedzo.attacks.attacker import Search, Task
from fedzo.attacks.random_search import random_search
from fedzo.attacks.region import Region, Shape
from fedzo.config import check_types, require

HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the horizon at which the area of the squares is halved."""
REDRAWN = 20
"""Squares that are drawn anew, at most, because they would change nothing."""


def square_side(passed: float, area: float, side: int) -> int:
    """Return h when a share of the horizon has passed: at least 1, below the image's side."""
    share = window_share(passed, area)
    return int(np.clip(round(math.sqrt(share) * side), 1, max(1, side - 1)))


def window_share(passed: float, area: float) -> float:
    """Return what is left of the area when a share of the horizon has passed."""
    halvings: int = sum(passed > share for share in HALVINGS)
    return area * 0.5**halvings


def stripes(
    lower: Float[Tensor, " d"],
    upper: Float[Tensor, " d"],
    shape: Shape,
    *,
    generator: np.random.Generator,
) -> Float[Tensor, " d"]:
    """Return vertical stripes, each at a random end of the box."""
    ends = torch.from_numpy(generator.integers(0, 2, (shape[0], 1, shape[2]))).bool()
    return torch.where(ends.expand(shape).reshape(-1), upper, lower)


def recolored(
    x: Float[Tensor, " d"],
    lower: Float[Tensor, " d"],
    upper: Float[Tensor, " d"],
    shape: Shape,
    h: int,
    *,
    generator: np.random.Generator,
) -> Float[Tensor, " d"]:
    """Return x with a random square of side h at a random end of the box in each channel.

    Where that is x, another square is drawn, at most REDRAWN times.
    """
    found = x
    for _ in range(1 + REDRAWN):
        place = window(shape, h, generator)
        ends = torch.from_numpy(generator.integers(0, 2, (shape[0], 1, 1))).bool()
        found = at_ends(x, lower, upper, shape, place, ends)
        if not torch.equal(found, x):
            break
    return found


def at_ends(
    x: Float[Tensor, " d"],
    lower: Float[Tensor, " d"],
    upper: Float[Tensor, " d"],
    shape: Shape,
    place: tuple[slice, slice],
    up: Bool[Tensor, "..."],
) -> Float[Tensor, " d"]:
    """Return x with the values in a window at the upper end of the box, or the lower."""
    where = (slice(None), *place)
    table = x.clone().reshape(shape)
    table[where] = torch.where(up, upper.reshape(shape)[where], lower.reshape(shape)[where])
    return table.reshape(-1)


def window(shape: Shape, h: int, generator: np.random.Generator) -> tuple[slice, slice]:
    """Return a random square of side h, or as much of it as the image is high and wide."""
    h, w = min(h, shape[1]), min(h, shape[2])
    top, left = (int(generator.integers(0, free + 1)) for free in (shape[1] - h, shape[2] - w))
    return slice(top, top + h), slice(left, left + w)


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """The attacker `square`; area is the first share of the image that a square covers.

    candidates: proposals in a request, each a query; more take fewer requests and more queries.
    """

    area: float = 0.8
    candidates: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.area <= 1, "area", self.area, "in (0, 1]")
        require(self.candidates >= 1, "candidates", self.candidates, "at least 1")

    def search(self, task: Task) -> Search:
        region, generator = task.region, task.generator

        def propose(delta: Float[Tensor, " d"], passed: float) -> Float[Tensor, " d"]:
            h = square_side(passed, self.area, min(region.shape[1:]))
            return _propose(delta, region, h, generator)

        start = _start(region, generator)
        return random_search(task, start, propose, candidates=self.candidates)


def ends(region: Region) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return the ends of what a value may be: for linf of the box inside the ball."""
    if region.norm == "linf":
        return region.lower.clamp(min=-region.radius), region.upper.clamp(max=region.radius)
    return region.lower, region.upper


def _start(region: Region, generator: np.random.Generator) -> Float[Tensor, " d"]:
    if region.norm != "l2":
        return region.project(stripes(*ends(region), region.shape, generator=generator))
    h = max(1, min(region.shape[1:]) // 5)
    table = torch.zeros(region.shape)
    for top in range(0, region.shape[1] - h + 1, h):
        for left in range(0, region.shape[2] - h + 1, h):
            table[:, top : top + h, left : left + h] = _bumps(region.shape[0], h, generator)
    return region.toward(-table.reshape(-1).to(region.lower))


def _propose(
    delta: Float[Tensor, " d"], region: Region, h: int, generator: np.random.Generator
) -> Float[Tensor, " d"]:
    if region.norm == "linf":
        return recolored(delta, *ends(region), region.shape, h, generator=generator)
    if region.norm != "l2":
        h = max(1, min(h, math.isqrt(int(region.radius))))
        fresh = recolored(delta, *ends(region), region.shape, h, generator=generator)
        return _with_room(delta, fresh, region)
    table = delta.reshape(region.shape).clone()
    rows, columns = window(region.shape, h, generator)
    others = window(region.shape, h, generator)
    table[:, others[0], others[1]] = 0
    table[:, rows, columns] = 0
    available = max(0.0, region.radius**2 - float(table.square().sum()))
    bumps = _bumps(region.shape[0], h, generator)[
        :, : rows.stop - rows.start, : columns.stop - columns.start
    ]
    old = delta.reshape(region.shape)[:, rows, columns]
    mixed = bumps.to(old) + old / old.norm().clamp(min=1e-12)
    table[:, rows, columns] = mixed / mixed.norm().clamp(min=1e-12) * math.sqrt(available)
    return region.project(table.reshape(-1))


def _with_room(
    delta: Float[Tensor, " d"], fresh: Float[Tensor, " d"], region: Region
) -> Float[Tensor, " d"]:
    """Return `fresh`, with as much of the old perturbation as is still allowed beside it."""
    changed = fresh != delta
    priority = torch.where(changed, fresh.abs() + 2, fresh.abs())
    kept = Region(region.norm, region.radius, -priority, priority, region.shape).project(priority)
    return torch.where(kept != 0, fresh, torch.zeros_like(fresh))


def _bumps(channels: int, h: int, generator: np.random.Generator) -> Float[Tensor, "c h h"]:
    """Return two opposite bumps side by side, in a random direction, of norm 1, random signs."""
    half = _bump(h, h // 2 or 1)
    table = torch.cat([half, -_bump(h, h - half.shape[1])], dim=1) if h > 1 else half
    if generator.integers(0, 2):
        table = table.T
    signs = torch.from_numpy(generator.choice(np.array([-1.0, 1.0]), (channels, 1, 1))).float()
    bumps: Tensor = signs * table / (table.norm() * math.sqrt(channels))
    return bumps


def _bump(height: int, width: int) -> Float[Tensor, "h w"]:
    """Return rings around the center, ring k of weight 1 / (k + 1)^2 added to those inside it."""
    rows, columns = (
        torch.minimum(torch.arange(n), torch.arange(n - 1, -1, -1)) for n in (height, width)
    )
    depth = torch.minimum(rows.unsqueeze(1), columns)
    weights = torch.arange(int(depth.max()) + 1, 0, -1, dtype=torch.float32).square().reciprocal()
    bump: Tensor = weights.cumsum(0)[depth]
    return bump
