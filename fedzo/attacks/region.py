"""Where a perturbation may be: a ball of a norm inside the range of valid pixels.

    D = { delta in [lower, upper]:  |delta| <= radius },   lower = -x, upper = 1 - x  for an image x

| norm  | |delta|                                | radius             |
|-------|----------------------------------------|--------------------|
| linf  | largest absolute change of a value     | in units of [0, 1] |
| l2    | root of the sum of squares             | in units of [0, 1] |
| l0    | number of pixels changed (any channel) | pixels             |
| patch | side of the smallest square around all | pixels             |

Projections are exact, onto the ball and the box together: for l2 the nearest point is
clamp(t delta) with the t <= 1 at which the norm is the radius; for l0 the pixels that lose most by
being left out are kept; for patch the best window is. `toward(g)` is the point of D with the lowest
<g, delta>, which for l2 is clamp(-t g) on the sphere. Shapes: delta [d], d = channels height width.
Cost: d times a few; nothing is queried.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.names import Norm
from fedzo.config import check_types, require
from fedzo.errors import ConfigError
from fedzo.number import read_number

Shape = tuple[int, int, int]
"""Channels, height, width."""

_SLACK = 1e-6
_ROUNDING = 4e-7
_NOTHING = 1e-100
_PASSES = 12
"""Halvings of the least rounding up that is taken back."""


def require_seen(change: float, name: str, value: float, dtype: torch.dtype) -> None:
    """Raise ConfigError where what a setting changes in a pixel's value is lost beside 1."""
    least, change = torch.finfo(dtype).eps, abs(change)
    if change >= least / 2:
        return
    kind = str(dtype).removeprefix("torch.")
    enough = f" to at least {8 * least * value / change:.1e}" if change else ""
    raise ConfigError(
        f"{name}={value:g} changes pixels by {change:.1e} at most, which {kind} loses beside values"
        f" up to 1: x + mu u is x; raise it{enough}"
    )


@dataclass(frozen=True, slots=True)
class Region:
    """The perturbations that are allowed."""

    norm: Norm
    radius: float
    lower: Float[Tensor, " d"]
    upper: Float[Tensor, " d"]
    shape: Shape

    def __post_init__(self) -> None:
        check_types(self)
        check_radius(self.norm, self.radius, self.shape)

    @property
    def dim(self) -> int:
        return len(self.lower)

    def project(self, delta: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Return the nearest allowed perturbation."""
        clipped = delta.clamp(self.lower, self.upper)
        if self.norm == "linf":
            return clipped.clamp(-self.radius, self.radius)
        if self.size(clipped) <= self.radius:
            return clipped
        if self.norm == "l2":
            return self._on_sphere(delta)
        loss_left_out = delta.square() - (delta - clipped).square()
        return torch.where(self._best_pixels(loss_left_out), clipped, torch.zeros_like(delta))

    def toward(self, gradient: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Return the allowed perturbation that a linear function falls most for."""
        if self.norm == "l2":
            return self._on_sphere(-gradient)
        corner = torch.where(gradient > 0, self.lower, self.upper)
        if self.norm == "linf":
            return corner.clamp(-self.radius, self.radius)
        chosen = self._best_pixels(-corner * gradient)
        return torch.where(chosen, corner, torch.zeros_like(gradient))

    def part_way(
        self,
        start: Float[Tensor, " d"],
        gradient: Float[Tensor, " d"],
        share: float,
    ) -> Float[Tensor, " d"]:
        """Return a step from `start` to `toward(gradient)` that changes only a share of it.

        linf: the share of the values that promise most. l2: a mixture of both, stretched to the
        border. l0, patch: the values inside the better pixels alone, their places only for shares
        above one half.
        """
        target = self.toward(gradient)
        if share >= 1:
            return target
        if self.norm == "l2":
            return self._on_sphere((1 - share) * start + share * target)
        if self.norm != "linf":
            if share > 0.5 or not start.any():
                return target
            corner = torch.where(gradient > 0, self.lower, self.upper)
            target = torch.where(start != 0, corner, torch.zeros_like(start))
        promise = (start - target) * gradient
        count = max(1, round(share * int((target != start).sum())))
        best = promise.topk(count).indices
        return start.index_copy(0, best, target[best])

    def size(self, delta: Float[Tensor, " d"]) -> float:
        """Return the norm of a perturbation."""
        if self.norm == "l2":
            return float(delta.norm())
        if self.norm == "linf":
            return float(delta.abs().max())
        changed = delta.reshape(self.shape).ne(0).any(dim=0)
        if self.norm == "l0":
            return float(changed.sum())
        places = changed.nonzero()
        return float((places.amax(0) - places.amin(0)).max() + 1) if len(places) else 0.0

    def contains(self, delta: Float[Tensor, " d"]) -> bool:
        """Say whether a perturbation is allowed, up to rounding."""
        slack = _SLACK * max(1.0, float(self.radius))
        inside = (delta >= self.lower - _SLACK) & (delta <= self.upper + _SLACK)
        return bool(inside.all()) and self.size(delta) <= self.radius + slack

    def of_radius(self, radius: float) -> "Region":
        """Return the same box with a ball of another radius."""
        return Region(self.norm, radius, self.lower, self.upper, self.shape)

    def on_steps(self, deltas: Float[Tensor, "q d"], levels: int) -> Float[Tensor, "q d"]:
        """Return changes of an image rounded to whole steps of 1 / levels.

        Each value to the nearest step, so images whose values are whole steps stay so. Where that
        leaves a ball that the change was inside of, what was rounded up most is rounded down.
        """
        steps = deltas * levels
        rounded = steps.round()
        far = self.radius * levels * (1 + _ROUNDING)
        if self.norm == "linf":
            down = (steps.abs() <= far) & (rounded.abs() > far)
            rounded = torch.where(down, rounded - rounded.sign(), rounded)
        elif self.norm == "l2":
            inside = steps.double().norm(dim=1) <= far
            for row in (inside & (rounded.double().norm(dim=1) > far)).nonzero().flatten():
                rounded[row] = _taken_back(steps[row], rounded[row], far)
        return rounded / levels

    def _on_sphere(self, direction: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Return clamp(t direction) of norm radius, or the corner of the box before the sphere.

        Along t each value grows until it is at its end. If all do that are there at some t, the
        squared norm is `full` of these and t^2 `free` of the others; solved for t, which is never
        beyond the sphere, more of them are, until there are no more.
        """
        largest = float(direction.abs().max())
        if largest == 0:
            return torch.zeros_like(direction)
        u = direction.double() / largest
        room = torch.where(u > 0, self.upper, -self.lower).double()
        size = u.abs()
        grows, squares, ends = size > _NOTHING, size.square(), room.square()
        if float(ends.where(grows, 0.0).sum()) <= self.radius**2:
            return self.upper.where(u > 0, self.lower).where(grows, 0.0)
        t, count = self.radius / math.sqrt(float(squares.sum())), 0
        while (now := int((ended := (t * size >= room) & grows).sum())) > count:
            count, free = now, float(squares.where(~ended, 0.0).sum())
            full = float(ends.where(ended, 0.0).sum())
            t = math.sqrt(max(0.0, self.radius**2 - full) / free) if free else math.inf
        return (t * u).to(direction).clamp(self.lower, self.upper)

    def _best_pixels(self, gain: Float[Tensor, " d"]) -> Tensor:
        """Return which values belong to the pixels, or to the window, of the largest gain."""
        by_pixel = gain.reshape(self.shape).sum(dim=0)
        count = int(self.radius)
        if self.norm == "l0":
            mask = torch.zeros(by_pixel.numel(), dtype=torch.bool)
            mask[by_pixel.flatten().topk(count).indices] = True
            return mask.reshape(by_pixel.shape).expand(self.shape).reshape(-1)
        lines = torch.nn.functional.avg_pool2d(by_pixel[None], (count, 1), stride=1)
        total = torch.nn.functional.avg_pool2d(lines, (1, count), stride=1)[0]
        top, left = divmod(int(total.argmax()), total.shape[1])
        mask = torch.zeros_like(by_pixel, dtype=torch.bool)
        mask[top : top + count, left : left + count] = True
        return mask.expand(self.shape).reshape(-1)


def _taken_back(
    steps: Float[Tensor, " d"], rounded: Float[Tensor, " d"], far: float
) -> Float[Tensor, " d"]:
    """Return what was rounded, of norm `far` or less, by rounding down what was rounded up most."""
    up = rounded.abs() - steps.abs()
    over = float(rounded.double().square().sum()) - far**2
    heights = up[up > 0]
    saved = (2 * rounded[up > 0].abs() - 1).double()
    least, most = 0.0, 0.5
    for _ in range(_PASSES):
        middle = (least + most) / 2
        enough = float(saved @ (heights > middle).double()) >= over
        least, most = (middle, most) if enough else (least, middle)
    return torch.where(up > least, rounded - rounded.sign(), rounded)


def read_radius(text: str | float, norm: str) -> float:
    """Return a radius as somebody has written it, such as 8/255.

    Raises ConfigError for what is no number, and for more in linf than pixels in [0, 1] can differ.
    """
    radius = read_number(text, name="radius") if isinstance(text, str) else text
    if norm == "linf" and radius > 1:
        raise ConfigError(
            f"radius={radius:g} is more than pixels in [0, 1] can differ in linf; eight steps of"
            " 255 are 8/255"
        )
    return radius


def check_radius(norm: Norm, radius: float, shape: Shape) -> None:
    """Raise ConfigError for a radius that the norm does not have on such images."""
    if norm == "linf":
        require(radius > 0, "radius", radius, "positive")
        return
    if norm == "l2":
        require(0 < radius < math.inf, "radius", radius, "positive and finite")
        return
    most = shape[1] * shape[2] if norm == "l0" else min(shape[1:])
    whole = 1 <= radius <= most and radius == int(radius)
    require(whole, "radius", radius, f"a whole number of pixels from 1 to {most} for {norm}")


def region_around(images: Float[Tensor, "k c h w"], norm: Norm, radius: float) -> Region:
    """Return what may be added to one image, or to each of several.

    Several images have one region, whose perturbations must be clipped for each of them.
    """
    if len(images) == 1:
        flat = images[0].reshape(-1)
        lower, upper = -flat, 1 - flat
    else:
        lower = images.new_full((images[0].numel(),), -1.0)
        upper = -lower
    channels, height, width = images.shape[1:]
    return Region(norm, radius, lower, upper, (channels, height, width))


def on_levels(images: Float[Tensor, "*n c h w"], levels: int) -> Float[Tensor, "*n c h w"]:
    """Return images rounded to whole steps of 1 / levels, at the bits that a file of them gives."""
    return (images * levels).round() / levels
