"""A cheap test for NaN and inf: one sum tells nearly always."""

import math

import torch
from torch import Tensor


def all_finite(tensor: Tensor) -> bool:
    """Return whether a tensor holds neither NaN nor inf.

    A finite sum proves it; only where the sum is not finite, which finite numbers can cause by
    overflow, is every element looked at.
    """
    return math.isfinite(float(tensor.sum())) or bool(torch.isfinite(tensor).all())
