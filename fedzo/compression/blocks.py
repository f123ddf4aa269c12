"""Rows in blocks that share a scale, and codes of a few bits in bytes."""

import torch
import torch.nn.functional as F
from jaxtyping import Shaped, UInt8
from torch import Tensor


def in_blocks(rows: Shaped[Tensor, "n d"], block: int) -> Shaped[Tensor, "n b c"]:
    """Return rows cut into blocks, the last one filled with zeros; at most one row is a block."""
    size = min(block, rows.shape[1])
    filled: Tensor = F.pad(rows, (0, -rows.shape[1] % size))
    return filled.reshape(len(rows), filled.shape[1] // size, size)


def num_blocks(dim: int, block: int) -> int:
    """Return the blocks of a vector."""
    return -(-dim // block)


def num_bytes(dim: int, bits: int) -> int:
    """Return the bytes that so many codes take."""
    return -(-dim * bits // 8)


def pack(codes: UInt8[Tensor, "n d"], bits: int) -> UInt8[Tensor, "n m"]:
    """Return codes below 2^bits, 8 / bits of them a byte, the first in the lowest bits."""
    if bits == 8:
        return codes
    each = 8 // bits
    cells: Tensor = F.pad(codes, (0, -codes.shape[1] % each)).unflatten(1, (-1, each))
    packed = cells[..., 0].clone()
    for place in range(1, each):
        packed |= cells[..., place] << (bits * place)
    return packed


def unpack(packed: UInt8[Tensor, "n m"], bits: int, dim: int) -> UInt8[Tensor, "n {dim}"]:
    """Return the codes that `pack` was given."""
    if bits == 8:
        return packed
    mask = (1 << bits) - 1
    cells = [(packed >> (bits * place)) & mask for place in range(8 // bits)]
    return torch.stack(cells, dim=2).flatten(1)[:, :dim]
