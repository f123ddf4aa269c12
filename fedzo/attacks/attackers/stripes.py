"""Random search by stripes: Square attack whose every other proposal is of grey stripes.

    window    a band of full height or full width, or a square of side h: by turns of chance
    linf      the band: stripes along it, each at a random end of the box, the same in all channels;
              the square: a random end in each channel (Square attack)
    l2        delta' = radius unit(delta + step radius u),  u of norm 1: grey stripes of random
              signs in the window;   step * 1.3 where the loss falls, else * 0.96
    accept if the loss falls;  the window's share of the image is halved along Square's schedule

The start is grey stripes over the whole image. fedzo's own, after Andriushchenko, Croce, Flammarion
& Hein, "Square Attack", ECCV 2020, whose start is stripes of a color each: grey ones fool networks
of photographs far more often, and squares bring what stripes cannot (docs/results/attacks.md).
Shapes: delta [d]. Cost: one query a proposal.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Reply, Search, Task
from fedzo.attacks.attackers.square import (
    at_ends,
    ends,
    recolored,
    square_side,
    window,
    window_share,
)
from fedzo.attacks.region import Shape
from fedzo.attacks.stripes import grey
from fedzo.config import check_types, require
from fedzo.errors import ConfigError

_GROWTH, _DECAY, _LEAST = 1.3, 0.96, 0.05
_FIRST = 0.5
"""Step of the L2 search at the beginning, and the share of the image that a band covers there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripes:
    """The attacker `stripes`, for victims that tell scores; norms linf and l2.

    area: first share of the image that a window covers. share: of proposals that are bands.
    """

    area: float = 0.4
    share: float = 0.5

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.area <= 1, "area", self.area, "in (0, 1]")
        require(0 <= self.share <= 1, "share", self.share, "from 0 to 1")

    def search(self, task: Task) -> Search:
        region = task.region
        if region.norm == "linf":
            yield from self._by_ends(task)
        elif region.norm == "l2":
            yield from self._on_sphere(task)
        else:
            raise ConfigError(
                f"attacker stripes is for norms linf and l2, not {region.norm}; use square or"
                " thompson"
            )

    def _by_ends(self, task: Task) -> Search:
        region, generator = task.region, task.generator
        low, high = ends(region)
        signs = _signs(region.shape[1:], upright=True, generator=generator)
        delta = at_ends(low, low, high, region.shape, _WHOLE, signs > 0)
        reply = yield delta.unsqueeze(0)
        best = _value(reply)
        for step in itertools.count(1):
            passed = step / task.query_budget
            if generator.random() < self.share:
                place, signs = _band(region.shape, window_share(passed, self.area), generator)
                proposal = at_ends(delta, low, high, region.shape, place, signs > 0)
            else:
                h = square_side(passed, self.area, min(region.shape[1:]))
                proposal = recolored(delta, low, high, region.shape, h, generator=generator)
            reply = yield proposal.unsqueeze(0)
            if float(reply.losses[0]) < best:
                delta, best = proposal, _value(reply)

    def _on_sphere(self, task: Task) -> Search:
        region, generator = task.region, task.generator
        signs = _signs(region.shape[1:], upright=True, generator=generator)
        delta = region.toward(-_unit(region.shape, _WHOLE, signs).to(region.lower))
        reply = yield delta.unsqueeze(0)
        best, length = _value(reply), _FIRST
        for step in itertools.count(1):
            passed = step / task.query_budget
            if generator.random() < self.share:
                place, signs = _band(region.shape, window_share(passed, _FIRST), generator)
            else:
                h = square_side(passed, self.area, min(region.shape[1:]))
                place, signs = _square(region.shape, h, generator)
            u = _unit(region.shape, place, signs).to(delta)
            proposal = region.toward(-(delta + length * region.radius * u))
            reply = yield proposal.unsqueeze(0)
            if float(reply.losses[0]) < best:
                delta, best, length = proposal, _value(reply), min(1.0, _GROWTH * length)
            else:
                length = max(_LEAST, _DECAY * length)


Place = tuple[slice, slice]
_WHOLE: Place = (slice(None), slice(None))


def _value(reply: Reply) -> float:
    return float(reply.losses[0].nan_to_num(torch.inf))


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


def _square(
    shape: Shape, h: int, generator: np.random.Generator
) -> tuple[Place, Float[Tensor, "h w"]]:
    """Return a random square of side h, and its stripes."""
    rows, columns = window(shape, h, generator)
    sides = (rows.stop - rows.start, columns.stop - columns.start)
    upright = bool(generator.integers(0, 2))
    return (rows, columns), _signs(sides, upright=upright, generator=generator)


def _unit(shape: Shape, place: Place, signs: Float[Tensor, "h w"]) -> Float[Tensor, " d"]:
    """Return grey stripes in a window, of norm 1."""
    plane = torch.zeros(1, *shape[1:])
    plane[0][place] = signs / signs.norm()
    return grey(plane, shape[0])[0]
