"""Few numbers for many pixels: the coordinates z in which an attacker may search.

| name   | delta                                     | dimension               |
|--------|-------------------------------------------|-------------------------|
| pixels | P(z)                                      | channels height width   |
| waves  | P(z C), the k x k lowest cosine waves     | channels k^2            |
| blocks | P(z B), k x k equal blocks                | channels k^2            |
| tanh   | middle + half width tanh(z) of the box    | channels height width   |

P is the projection onto the region, the rows of C and B have norm 1 up to the size of the image.
Guo, Frank & Weinberger, "Low Frequency Adversarial Perturbation", UAI 2019 (waves); Carlini &
Wagner, S&P 2017 (tanh: the box needs no clipping then, the ball does).
"""

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.names import CoordinateName
from fedzo.attacks.region import Region
from fedzo.config import check_types, require
from fedzo.used_with import UsedWith, one_of, require_used


@dataclass(frozen=True, slots=True)
class Coordinates:
    """A map from z [q, p] into a region; count is the k of waves and blocks."""

    name: CoordinateName = "pixels"
    count: int = 7
    USED_WITH: ClassVar[UsedWith] = {"count": one_of("name", "waves", "blocks")}

    def __post_init__(self) -> None:
        check_types(self)
        require_used(self)
        require(self.count >= 1, "count", self.count, "at least 1")

    def basis(self, shape: tuple[int, int, int]) -> Float[Tensor, "p d"] | None:
        """Return the rows that z combines; None for as many as there are values.

        Raises ConfigError for more waves or blocks than pixels.
        """
        if self.name in ("pixels", "tanh"):
            return None
        least = min(shape[1:])
        allowed = f"{self.name}:1 to {self.name}:{least}, as images have {least} pixels a side"
        require(1 <= self.count <= least, "coordinates", f"{self.name}:{self.count}", allowed)
        return _basis(self.name, self.count, shape)

    def dim(self, region: Region) -> int:
        """Return the number of coordinates."""
        basis = self.basis(region.shape)
        return region.dim if basis is None else len(basis)

    def perturbations(self, z: Float[Tensor, "q p"], region: Region) -> Float[Tensor, "q d"]:
        """Return the perturbation at each z."""
        if self.name == "tanh":
            low = region.lower.clamp(min=-region.radius)
            high = region.upper.clamp(max=region.radius)
            z = (low + high) / 2 + (high - low) / 2 * z.tanh()
        else:
            basis = self.basis(region.shape)
            z = z if basis is None else z.to(basis) @ basis
        return torch.stack([region.project(row) for row in z.to(region.lower)])

    def start(self, region: Region) -> Float[Tensor, " p"]:
        """Return the coordinates of no perturbation, float64."""
        zero = torch.zeros(self.dim(region), dtype=torch.float64)
        if self.name != "tanh":
            return zero
        low = region.lower.clamp(min=-region.radius)
        high = region.upper.clamp(max=region.radius)
        middle = (-(low + high) / (high - low).clamp(min=1e-9)).clamp(-0.98, 0.98)
        start: Tensor = middle.double().atanh()
        return start


@functools.lru_cache(maxsize=16)
def _basis(name: CoordinateName, count: int, shape: tuple[int, int, int]) -> Float[Tensor, "p d"]:
    channels, height, width = shape
    make = waves if name == "waves" else _blocks
    rows, columns = make(height, count), make(width, count)
    plane = torch.einsum("ah,bw->abhw", rows, columns).reshape(count**2, height * width)
    basis: Tensor = torch.block_diag(*[plane] * channels)
    return basis


def _blocks(side: int, count: int) -> Float[Tensor, "k s"]:
    owner = torch.arange(side) * count // side
    return (owner == torch.arange(count).unsqueeze(1)).float()


def waves(side: int, count: int) -> Float[Tensor, "k s"]:
    """Return the `count` lowest cosine waves of a line, of norm sqrt(side)."""
    place = (torch.arange(side) + 0.5) * (math.pi / side)
    waves = torch.cos(torch.arange(count).unsqueeze(1) * place) * math.sqrt(2)
    waves[0] = 1.0
    return waves


def cosine_waves(side: int, count: int) -> Float[Tensor, "d p"]:
    """Return the count^2 lowest two-dimensional cosine waves, flat, of norm `side`.

    The constant wave is 1 in every pixel, so one coefficient can fill the box.
    """
    return _basis("waves", count, (1, side, side))
