"""Random search by stripes: Square attack whose every other proposal is of grey stripes.

    window    a band of full height or full width, or a square of side h: by turns of chance
    band      stripes along it, each at a random end, the same in all channels (l2: by luma)
    square    a random end in each channel (Square attack)
    ends      linf: those of the box inside the ball;  l2: +- radius / sqrt(pixels), by luma,
              and the proposal goes onto the sphere
    accept if the loss falls;  the window's share of the image is halved along Square's schedule

The start is grey stripes over the whole image. fedzo's own, after Andriushchenko, Croce, Flammarion
& Hein, "Square Attack", ECCV 2020, whose start is stripes of a color each: grey ones fool networks
of photographs far more often, and squares bring what stripes cannot (docs/results/attacks.md).
Shapes: delta [d]. Cost: one query a proposal.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Search, Task
from fedzo.attacks.attackers.square import (
    at_ends,
    ends,
    recolored,
    square_side,
    window_share,
)
from fedzo.attacks.random_search import random_search
from fedzo.attacks.region import Region, Shape
from fedzo.attacks.stripes import grey
from fedzo.config import check_types, require
from fedzo.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripes:
    """The attacker `stripes`, for victims that tell scores; norms linf and l2.

    area: first share of the image that a window covers. share: of proposals that are bands.
    candidates: proposals in a request, each a query; more take fewer requests and more queries.
    """

    area: float = 0.4
    share: float = 0.5
    candidates: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.area <= 1, "area", self.area, "in (0, 1]")
        require(0 <= self.share <= 1, "share", self.share, "from 0 to 1")
        require(self.candidates >= 1, "candidates", self.candidates, "at least 1")

    def search(self, task: Task) -> Search:
        region, generator = task.region, task.generator
        low, high = _ends(region)
        signs = _signs(region.shape[1:], upright=True, generator=generator)
        start = _inside(region, at_ends(low, low, high, region.shape, _WHOLE, signs > 0))

        def propose(delta: Float[Tensor, " d"], passed: float) -> Float[Tensor, " d"]:
            if generator.random() < self.share:
                share = window_share(passed, self.area)
                place, signs = _band(region.shape, share, generator)
                return _inside(region, at_ends(delta, low, high, region.shape, place, signs > 0))
            h = square_side(passed, self.area, min(region.shape[1:]))
            changed = recolored(delta, low, high, region.shape, h, generator=generator)
            return _inside(region, changed)

        return random_search(task, start, propose, candidates=self.candidates)


def _ends(region: Region) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return what values are set to: the box's ends, or where all of them together are the ball's.

    Raises ConfigError for other norms than linf and l2.
    """
    if region.norm == "linf":
        return ends(region)
    if region.norm != "l2":
        raise ConfigError(
            f"attacker stripes is for norms linf and l2, not {region.norm}; use square or thompson"
        )
    plane = torch.full((1, *region.shape[1:]), region.radius / math.prod(region.shape[1:]) ** 0.5)
    high = grey(plane, region.shape[0])[0].to(region.lower)
    return -high, high


def _inside(region: Region, proposal: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """Return a proposal on the sphere of l2; of linf it is inside already."""
    return region.toward(-proposal) if region.norm == "l2" else proposal


Place = tuple[slice, slice]
_WHOLE: Place = (slice(None), slice(None))


def _signs(
    sides: tuple[int, int], *, upright: bool, generator: np.random.Generator
) -> Float[Tensor, "h w"]:
    """Return stripes of random signs in a window, along its columns if upright, else its rows."""
    count = sides[1] if upright else sides[0]
    drawn = torch.from_numpy(generator.choice(np.array([-1.0, 1.0]), count)).float()
    return (drawn.unsqueeze(0) if upright else drawn.unsqueeze(1)).expand(sides)


def _band(
    shape: Shape, share: float, generator: np.random.Generator
) -> tuple[Place, Float[Tensor, "h w"]]:
    """Return a band of a share of the image, over its whole height or width, and its stripes."""
    upright = bool(generator.integers(0, 2))
    side = shape[2] if upright else shape[1]
    width = min(side, max(1, round(share * side)))
    first = int(generator.integers(0, side - width + 1))
    band = slice(first, first + width)
    place = (slice(None), band) if upright else (band, slice(None))
    sides = (shape[1], width) if upright else (width, shape[2])
    return place, _signs(sides, upright=upright, generator=generator)
