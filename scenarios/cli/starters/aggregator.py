"""Starter: what the server makes of its clients' vectors when some of them may lie.

per coordinate, the mean of the values between the f smallest and the f largest, f + extra each
"""

import torch
from torch import Tensor

from fedzo.errors import ConfigError


def starter(vectors: Tensor, *, num_byzantine: int, extra: int = 0) -> Tensor:
    """Return one vector [d] of vectors [n, d]; extra is typed as starter(extra=1)."""
    cut = num_byzantine + extra
    if extra < 0 or 2 * cut >= len(vectors):
        raise ConfigError(f"extra={extra} must be 0 or more, and leave some of {len(vectors)}")
    kept: Tensor = torch.sort(vectors, dim=0).values[cut : len(vectors) - cut]
    return kept.mean(dim=0)
