"""The largest numbers alone, in bfloat16, and where they are.

    k = max(1, round(fraction d)) places with the largest |v|;  the rest is 0

Bytes: 4 k where d is at most 65,536, else 6 k. Stich, Cordonnier & Jaggi, "Sparsified SGD with
Memory", NeurIPS 2018, algorithm 1, which keeps whole numbers; here error feedback carries what
bfloat16 loses as well. Without error feedback most numbers are never heard of.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from fedzo.compression.compressor import Compressor, Form

_SHORT = 1 << 16
"""Numbers whose places fit into two bytes; int16 holds them less 2^15."""


@dataclass(frozen=True, slots=True)
class TopK(Compressor):
    """Keeps a share of the numbers."""

    fraction: float

    def kept(self, dim: int) -> int:
        """Return how many numbers of a vector are kept."""
        return max(1, round(self.fraction * dim))

    def forms(self, dim: int) -> dict[str, Form]:
        count = (self.kept(dim),)
        places = torch.int16 if dim <= _SHORT else torch.int32
        return {"values": (count, torch.int16), "places": (count, places)}

    def encode(
        self, rows: Float[Tensor, "n d"], uniforms: Float[Tensor, "n d"] | None
    ) -> dict[str, Tensor]:
        dim = rows.shape[1]
        places = rows.abs().topk(self.kept(dim), dim=1).indices.sort(dim=1).values
        values = rows.gather(1, places).to(torch.bfloat16).view(torch.int16)
        if dim <= _SHORT:
            return {"values": values, "places": (places - _SHORT // 2).to(torch.int16)}
        return {"values": values, "places": places.to(torch.int32)}

    def decode(self, parts: Mapping[str, Tensor], dim: int) -> Float32[Tensor, "n d"]:
        values = parts["values"].contiguous().view(torch.bfloat16).float()
        return values.new_zeros(len(values), dim).scatter_(1, self._places(parts, dim), values)

    def sound(self, parts: Mapping[str, Tensor], dim: int) -> Bool[Tensor, " n"]:
        places = self._places(parts, dim)
        inside = ((places >= 0) & (places < dim)).all(dim=1)
        return inside & (places.diff(dim=1) > 0).all(dim=1)

    def _places(self, parts: Mapping[str, Tensor], dim: int) -> Tensor:
        places = parts["places"].long()
        return places + _SHORT // 2 if dim <= _SHORT else places
