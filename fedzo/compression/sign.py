"""One bit a number, and the mean size of each block.

    v -> sign(v) mean |v| over the block,   sign(0) = 1

Bytes: d / 8, and 4 for each block. Karimireddy et al., "Error Feedback Fixes SignSGD and other
Gradient Compression Schemes", ICML 2019, whose scale is of the whole vector. Without error feedback
it is biased, and need not converge.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from fedzo.compression.blocks import in_blocks, num_blocks, num_bytes, pack, unpack
from fedzo.compression.compressor import Compressor, Form


@dataclass(frozen=True, slots=True)
class Sign(Compressor):
    """Keeps signs and the mean size of a block."""

    block: int

    def forms(self, dim: int) -> dict[str, Form]:
        return {
            "codes": ((num_bytes(dim, 1),), torch.uint8),
            "means": ((num_blocks(dim, self.block),), torch.float32),
        }

    def encode(
        self, rows: Float[Tensor, "n d"], uniforms: Float[Tensor, "n d"] | None
    ) -> dict[str, Tensor]:
        sums = in_blocks(rows.abs(), self.block).sum(2)
        counts = in_blocks(torch.ones_like(rows[:1]), self.block).sum(2)
        codes = pack((rows >= 0).to(torch.uint8), 1)
        return {"codes": codes, "means": (sums / counts).float()}

    def decode(self, parts: Mapping[str, Tensor], dim: int) -> Float32[Tensor, "n d"]:
        signs = unpack(parts["codes"], 1, dim).float() * 2 - 1
        blocks = in_blocks(signs, self.block)
        return (blocks * parts["means"].unsqueeze(2)).flatten(1)[:, :dim]
