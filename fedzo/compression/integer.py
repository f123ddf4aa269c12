"""Whole numbers of 2, 4 or 8 bits and a scale for each block.

    L = 2^(bits-1) - 1,  step = max |v| / L over the block,  v -> round(v / step) step

`stochastic` rounds up with the probability that makes it unbiased (Alistarh et al., "QSGD", NeurIPS
2017), `nearest` does not draw. Bytes: d bits / 8, and 4 for each block. Differs from QSGD: the
scale is the largest number of a block, not the norm of the vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from fedzo.compression.blocks import in_blocks, num_blocks, num_bytes, pack, unpack
from fedzo.compression.compressor import Compressor, Form

Rounding = Literal["nearest", "stochastic"]


@dataclass(frozen=True, slots=True)
class Integer(Compressor):
    """Rounds to whole multiples of a block's step."""

    bits: int
    rounding: Rounding
    block: int

    @property
    def draws(self) -> bool:
        return self.rounding == "stochastic"

    def forms(self, dim: int) -> dict[str, Form]:
        return {
            "codes": ((num_bytes(dim, self.bits),), torch.uint8),
            "steps": ((num_blocks(dim, self.block),), torch.float32),
        }

    def encode(
        self, rows: Float[Tensor, "n d"], uniforms: Float[Tensor, "n d"] | None
    ) -> dict[str, Tensor]:
        blocks = in_blocks(rows, self.block)
        steps = (blocks.abs().amax(2) / self._most).float()
        scaled = blocks / steps.unsqueeze(2).to(blocks)
        if uniforms is None:
            whole = scaled.round()
        else:
            whole = (scaled.double() + in_blocks(uniforms, self.block)).floor()
        whole = whole.nan_to_num(0.0).clamp(-self._most, self._most) + self._most
        codes = whole.to(torch.uint8).flatten(1)[:, : rows.shape[1]]
        return {"codes": pack(codes, self.bits), "steps": steps}

    def decode(self, parts: Mapping[str, Tensor], dim: int) -> Float32[Tensor, "n d"]:
        codes = unpack(parts["codes"], self.bits, dim)
        blocks = in_blocks(codes.float() - self._most, self.block)
        return (blocks * parts["steps"].unsqueeze(2)).flatten(1)[:, :dim]

    @property
    def _most(self) -> int:
        return (1 << (self.bits - 1)) - 1
