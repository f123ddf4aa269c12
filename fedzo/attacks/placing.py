"""Patches that are to work wherever they are put: expectation over placement.

    loss(p) = mean over k places of max(0, loss of the image with p pasted there)

Brown, Mané, Roy, Abadi & Gilmer, "Adversarial Patch", arXiv 1712.09665, equation 1, with shifts as
the only transformation and one image; differs: the places are drawn once, so that losses of two
patches compare, and whether a patch works elsewhere is asked at as many other places in the end.
A patch is searched as a change of a grey square, to any values in [0, 1].

Shapes: images [k, c, h, w] one a place, contents [q, c s s]. Cost: k queries a proposal.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.region import Region, Shape, check_radius, region_around
from fedzo.attacks.settings import AttackSettings
from fedzo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Places:
    """Where a patch of a side is put: rows and columns of its upper left corners.

    base: the grey value that a patch is a change of.
    """

    corners: Int[Tensor, "k 2"]
    side: int
    base: float

    def __len__(self) -> int:
        return len(self.corners)

    def pasted(
        self, images: Float[Tensor, "k c h w"], changes: Float[Tensor, "q d"]
    ) -> Float[Tensor, "b c h w"]:
        """Return every image with each patch at its place; b = q k, patches slowest."""
        side = self.side
        contents = self.contents(changes, images.shape[1]).to(images)
        shown = images.unsqueeze(0).repeat(len(changes), 1, 1, 1, 1)
        for i, (top, left) in enumerate(self.corners.tolist()):
            shown[:, i, :, top : top + side, left : left + side] = contents
        return shown.flatten(0, 1)

    def contents(self, changes: Float[Tensor, "q d"], channels: int) -> Float[Tensor, "q c s s"]:
        """Return patches as pictures."""
        pictures = (self.base + changes).clamp(0, 1)
        return pictures.reshape(-1, channels, self.side, self.side)


def drawn_places(
    shape: Shape, settings: AttackSettings, *, generator: np.random.Generator
) -> tuple[Places, Places]:
    """Return as many places of a patch in an image as settings ask for, and as many others.

    All differ; there are fewer others where an image has no more.
    """
    side, count = int(settings.radius), settings.placements
    down, across = (length - side + 1 for length in shape[1:])
    order = torch.from_numpy(generator.permutation(down * across)[: 2 * count])
    corners = torch.stack([order // across, order % across], dim=1)
    base = _base(settings.levels)
    return Places(corners[:count], side, base), Places(corners[count:], side, base)


def region_of(images: Float[Tensor, "k c h w"], settings: AttackSettings) -> Region:
    """Return what may be added to images, or with placements to a grey square.

    Raises ConfigError for a radius that the norm does not have on such images, and for more places
    of a patch than there are.
    """
    if not settings.placements:
        return region_around(images, settings.norm, settings.radius)
    channels, height, width = images.shape[1:]
    check_radius(settings.norm, settings.radius, (channels, height, width))
    side, base = int(settings.radius), _base(settings.levels)
    there = (height - side + 1) * (width - side + 1)
    if settings.placements > there:
        raise ConfigError(
            f"placements={settings.placements}, but a patch of {side} x {side} has {there} places"
            f" in an image of {height} x {width}; ask for fewer, or for a smaller patch"
        )
    lower = images.new_full((channels * side**2,), -base)
    return Region("linf", max(base, 1 - base), lower, 1 + lower, (channels, side, side))


def _base(levels: int) -> float:
    return round(0.5 * levels) / levels if levels else 0.5
