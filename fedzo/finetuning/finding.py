"""How a step finds what it goes along: values along directions become an estimate.

    values = f(x + offset mu u_i);   c = shaping(slopes of the values);   g = weight sum_i c_i u_i

Schemes: fedzo.estimation.schemes and fedzo.finetuning.shaping. Directions:
fedzo.finetuning.samplers. A value that is not finite leaves its direction out; a step without any
slope goes nowhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.estimation.direction import Direction
from fedzo.estimation.estimate import Estimate
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.schemes import BASE, Scheme
from fedzo.finetuning.samplers import Sampler
from fedzo.finetuning.shaping import Shaping


@dataclass(frozen=True, slots=True)
class Found:
    """An estimate of the gradient at x, and the loss there as far as it is known.

    loss: at x where x was asked, otherwise the mean around it.
    """

    estimate: Estimate
    loss: float


@runtime_checkable
class Finder(Protocol):
    """Asks, and makes an estimate of the answers."""

    def find(self, place: InPlace, step: int) -> Found:
        """Return what step number `step` goes along."""
        ...


@dataclass(frozen=True, slots=True)
class Slopes:
    """Slopes along directions, NaN where one is missing, and the loss as of `Found`."""

    directions: Sequence[Direction]
    slopes: Float[Tensor, " m"]
    loss: float


@dataclass(slots=True)
class ByValues:
    """Directions of a sampler, a scheme, and what is made of its slopes."""

    sampler: Sampler
    scheme: Scheme
    mu: float
    num_directions: int = 1
    shape: Shaping | None = None
    _before: Float[Tensor, "1 m"] | None = None
    _last: tuple[int, Float[Tensor, "1 m"]] | None = None

    def find(self, place: InPlace, step: int) -> Found:
        found = self.asked(place, step)
        shaped = found.slopes if self.shape is None else self.shape(found.slopes)
        return Found(weighted(found.directions, shaped, self.sampler), found.loss)

    def asked(self, place: InPlace, step: int) -> Slopes:
        """Ask for the slopes of a step."""
        directions = self.sampler.directions(step, self.num_directions)
        values = finite(place.values(directions, self.scheme, self.mu))
        if self._last is not None and self._last[0] != step:  # a step taken anew remembers no more
            self._before = self._last[1]
        slopes = self.scheme.slopes(values.unsqueeze(0), self.mu, self._before)[0]
        if self.scheme.remembers:
            self._last = step, values.unsqueeze(0)
        offsets = list(self.scheme.offsets(len(directions)))
        loss = values[offsets.index(BASE)] if BASE in offsets else values.nanmean()
        return Slopes(directions, slopes, float(loss))


@dataclass(slots=True)
class ByTangents:
    """Baydin, Pearlmutter, Syme, Wood & Torr, "Gradients without Backpropagation", 2022: exact
    slopes by forward-mode differentiation, 1 / m sum_i <grad f, u_i> u_i. No mu, no bias.
    """

    sampler: Sampler
    num_directions: int = 1

    def find(self, place: InPlace, step: int) -> Found:
        directions = self.sampler.directions(step, self.num_directions)
        pairs = place.tangents(directions)
        slopes = finite(torch.tensor([slope for _, slope in pairs], dtype=torch.float64))
        return Found(weighted(directions, slopes, self.sampler), pairs[0][0])


def weighted(
    directions: Sequence[Direction], slopes: Float[Tensor, " m"], sampler: Sampler
) -> Estimate:
    """Return the sampler's estimate from slopes, of which those that are not finite are missing.

    It is empty where all are, so that a step goes nowhere and no momentum coasts.
    """
    known = slopes.isfinite()
    if not bool(known.any()):
        return Estimate((), slopes[:0].double())
    return Estimate(directions, slopes.where(known, 0.0).double() * sampler.weights(known))


def finite(values: Float[Tensor, " q"]) -> Float[Tensor, " q"]:
    """Return values with NaN for what is not finite."""
    return values.where(values.isfinite(), torch.nan)
