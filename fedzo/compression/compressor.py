"""The face of every compressor: a few tensors of vectors, and vectors of these again.

What decodes is made of float32 numbers alone, so that both ends have the same bits whatever the
type of x is.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

Form = tuple[tuple[int, ...], torch.dtype]
"""Shape and type of a tensor of one vector."""


class Compressor(ABC):
    """Encodes and decodes vectors [n, d]; both are pure functions."""

    __slots__ = ()

    @property
    def draws(self) -> bool:
        """Whether `encode` needs a uniform number for each element."""
        return False

    @abstractmethod
    def forms(self, dim: int) -> Mapping[str, Form]:
        """Return shape and type of one vector's tensors."""

    @abstractmethod
    def encode(
        self, rows: Float[Tensor, "n d"], uniforms: Float[Tensor, "n d"] | None
    ) -> dict[str, Tensor]:
        """Return the tensors [n, ...] of vectors; what is not finite decodes to what is not."""

    @abstractmethod
    def decode(self, parts: Mapping[str, Tensor], dim: int) -> Float32[Tensor, "n d"]:
        """Return the vectors that sound tensors stand for."""

    def sound(self, parts: Mapping[str, Tensor], dim: int) -> Bool[Tensor, " n"]:
        """Return whose tensors can be decoded, of those that have their forms."""
        first = next(iter(parts.values()))
        return torch.ones(len(first), dtype=torch.bool, device=first.device)
