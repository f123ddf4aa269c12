"""Stripes: the changes of an image that networks of photographs bear least.

    columns: every pixel of a column changes alike;  rows: every pixel of a row;  both: their sum

All channels of an image change together, by grey: three by the weights of luma (ITU-R BT.601), any
others alike. Yin, Lopes, Shlens, Cubuk & Gilmer, "A Fourier Perspective on Model Robustness",
NeurIPS 2019, saw networks fail along such directions; Square attack starts from stripes of a color
of their own (Andriushchenko et al., ECCV 2020). Shapes: d = channels height width.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.region import Shape

_LUMA = (0.299, 0.587, 0.114)


def grey(planes: Float[Tensor, "q h w"], channels: int) -> Float[Tensor, "q d"]:
    """Return changes of an image's brightness, of the norms of the planes."""
    weights = torch.tensor(_LUMA if channels == 3 else (1.0,) * channels)
    weights = (weights / weights.norm()).to(planes)
    changes: Tensor = weights.view(1, -1, 1, 1) * planes.unsqueeze(1)
    return changes.flatten(1)


def crossed(heights: Float[Tensor, "q s"], shape: Shape) -> Float[Tensor, "q h w"]:
    """Return planes of stripes along the rows and the columns, s = height + width."""
    rows, columns = heights.split([shape[1], shape[2]], dim=1)
    upright: Tensor = columns.unsqueeze(1) / math.sqrt(shape[1])
    across: Tensor = rows.unsqueeze(2) / math.sqrt(shape[2])
    return across + upright
