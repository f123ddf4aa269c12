"""Numbers in two bytes: bfloat16 keeps the range of float32, float16 three more bits.

Both round to nearest; float16 holds at most 65,504, beyond which a number is cut to that.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from fedzo.compression.compressor import Compressor, Form


@dataclass(frozen=True, slots=True)
class Cast(Compressor):
    """Casts to a type of two bytes; they travel as int16, for numpy knows no bfloat16."""

    dtype: torch.dtype

    def forms(self, dim: int) -> dict[str, Form]:
        return {"values": ((dim,), torch.int16)}

    def encode(
        self, rows: Float[Tensor, "n d"], uniforms: Float[Tensor, "n d"] | None
    ) -> dict[str, Tensor]:
        most = torch.finfo(self.dtype).max
        kept = rows.clamp(-most, most).where(rows.isfinite(), rows)
        return {"values": kept.to(self.dtype).view(torch.int16)}

    def decode(self, parts: Mapping[str, Tensor], dim: int) -> Float32[Tensor, "n d"]:
        return parts["values"].contiguous().view(self.dtype).float()
