"""Signs of a key, drawn once for all passes of a step: a bit each.

    out = source + alpha u,   eight signs of u at a time looked up in a table of alpha and -alpha

A step of central differences needs its direction three times, at both ends and for the step. Kept
as bits it is drawn once, and adding it costs little more than adding. Same bits as the key's own.
Memory: d / 8 bytes, as far as numbers are asked, and 256 KiB.
"""

import functools

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fedzo.estimation.direction import Direction
from fedzo.estimation.keys import Key

_BLOCK = 1 << 20
"""Numbers that are drawn together."""
_FEW = 1 << 13
"""Numbers of which keys keep blocks themselves."""
_AT_ONCE = 1 << 17
_AT_ONCE_ON_GPU = 1 << 23


class Packed(Direction):
    """The direction of a key of signs."""

    __slots__ = ("_held", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self._held: dict[tuple[int, torch.device], UInt8[Tensor, " k"]] = {}

    def fill_(self, out: Float[Tensor, " k"], start: int) -> Float[Tensor, " k"]:
        return self.key.fill_(out, start)

    def add_scaled_(
        self, out: Float[Tensor, " k"], source: Float[Tensor, " k"], start: int, alpha: float
    ) -> None:
        """Write source + alpha u into `out`, which may be the source; both in float32."""
        if len(out) <= _FEW and (start // _BLOCK, out.device) not in self._held:
            u = self.key.draw(start, start + len(out), device=out.device)
            torch.add(source, u.mul_(alpha), out=out)
            return
        table = _table(alpha, str(out.device))
        step = _AT_ONCE if out.device.type == "cpu" else _AT_ONCE_ON_GPU
        step = min(step, _BLOCK)
        stop = start + len(out)
        buffer = torch.empty(min(step, len(out) + 16) // 8 + 2, 8, device=out.device)
        for low in range(start - start % step, stop, step):
            begin, end = max(low, start), min(low + step, stop)
            first = begin // 8
            octets = self._octets(first, -(-end // 8), out.device)
            looked_up = torch.index_select(table, 0, octets.int(), out=buffer[: len(octets)])
            signs = looked_up.view(-1)[begin - 8 * first : end - 8 * first]
            part = slice(begin - start, end - start)
            torch.add(source[part], signs, out=out[part])

    def numbers_at(self, numbers: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the signs at these places."""
        low, high = int(numbers.min()) // _BLOCK, int(numbers.max()) // _BLOCK
        blocks = [self._block(block, numbers.device) for block in range(low, high + 1)]
        inside = numbers - low * _BLOCK
        octets = (blocks[0] if low == high else torch.cat(blocks))[inside >> 3]
        bits = octets.bitwise_right_shift_(inside.bitwise_and_(7).to(torch.uint8)).bitwise_and_(1)
        return bits.float().mul_(2.0).sub_(1.0)

    def _octets(self, first: int, stop: int, device: torch.device) -> UInt8[Tensor, " k"]:
        """Return eights of signs, all of one block."""
        block = first * 8 // _BLOCK
        skipped = block * _BLOCK // 8
        return self._block(block, device)[first - skipped : stop - skipped]

    def _block(self, block: int, device: torch.device) -> UInt8[Tensor, " k"]:
        if (block, device) not in self._held:
            first = block * _BLOCK // 32
            words = self.key.words(first, first + _BLOCK // 32, device=device)
            self._held[block, device] = words.view(torch.uint8)
        return self._held[block, device]


def packed(u: Direction) -> Direction:
    """Return a direction that is kept as bits where it is a key of signs, and itself otherwise."""
    return Packed(u) if isinstance(u, Key) and u.law == "rademacher" else u


def unpacked(u: Direction) -> Direction:
    """Return the key of a direction that is kept as bits, and any other as it is."""
    return u.key if isinstance(u, Packed) else u


@functools.lru_cache(maxsize=64)
def _table(alpha: float, device: str) -> Float[Tensor, "256 8"]:
    numbers = torch.arange(256, device=device).unsqueeze(1)
    bits = numbers >> torch.arange(8, device=device) & 1
    return (2.0 * bits - 1.0) * alpha
