"""Signs of a key, drawn once for all passes of a step: a bit each.

    out = source + alpha u,   eight signs of u at a time looked up in a table

A step of central differences needs its direction three times, at both ends and for the step. Kept
as bits it is drawn once, and adding it costs little more than adding. Same bits as the key's own.
Memory: d / 8 bytes, as far as numbers are asked, and 3 MiB (GPU: 48 MiB).
"""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fedzo.estimation.direction import Direction
from fedzo.estimation.keys import Key
from fedzo.estimation.laws import eights_of_signs

_LEAST, _MOST = 1 << 17, 1 << 22
"""Numbers that are drawn together, at the start of the direction and from the last of these on."""
_FEW = 1 << 13
"""Numbers of which keys keep blocks themselves."""
_AT_ONCE = 1 << 19


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
        if len(out) <= _FEW and (_block_of(start)[0], out.device) not in self._held:
            u = self.key.draw(start, start + len(out), device=out.device)
            torch.add(source, u.mul_(alpha), out=out)
            return
        eights = eights_of_signs(out.device)
        step = _AT_ONCE if out.device.type == "cpu" else _MOST
        begin, stop = start, start + len(out)
        while begin < stop:
            low, high = _block_of(begin)
            end = min(stop, high, begin - begin % step + step)
            octets = self._block(low, high, out.device)[(begin - low) // 8 : -(-(end - low) // 8)]
            looked_up = eights.index_select(0, octets.int()).view(torch.int8)
            signs = looked_up[begin % 8 : begin % 8 + end - begin]
            part = slice(begin - start, end - start)
            torch.add(source[part], signs, alpha=alpha, out=out[part])
            begin = end

    def rows(self, starts: Int[Tensor, " r"], width: int) -> Float[Tensor, "r w"]:
        """Return `width` signs from each of these places on."""
        at, stop = int(starts.min()), int(starts.max()) + width
        base = _block_of(at)[0]
        blocks = list[Tensor]()
        while at < stop:
            low, at = _block_of(at)
            blocks.append(self._block(low, at, starts.device))
        held = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
        first = starts - base
        octets = torch.arange(width // 8 + 2, device=first.device)
        octets = ((first >> 3).unsqueeze(1) + octets).clamp_(max=len(held) - 1)
        eights = eights_of_signs(first.device)
        signs = eights[held[octets].int()].view(torch.int8)
        skipped = first & 7
        if bool((skipped == skipped[0]).all()):
            return signs[:, int(skipped[0]) : int(skipped[0]) + width].float()
        inside = skipped.unsqueeze(1) + torch.arange(width, device=first.device)
        return signs.gather(1, inside).float()

    def _block(self, low: int, high: int, device: torch.device) -> UInt8[Tensor, " k"]:
        """Return the signs of a block, eight in a byte."""
        if (low, device) not in self._held:
            words = self.key.words(low // 32, high // 32, device=device)
            self._held[low, device] = words.view(torch.uint8)
        return self._held[low, device]


def _block_of(number: int) -> tuple[int, int]:
    """Return the first number of the block in which one lies, and the first after it."""
    size = min(max(1 << number.bit_length() >> 1, _LEAST), _MOST)
    low = number - number % size
    return low, low + size


def packed(u: Direction) -> Direction:
    """Return a direction that is kept as bits where it is a key of signs, and itself otherwise."""
    return Packed(u) if isinstance(u, Key) and u.law == "rademacher" else u


def unpacked(u: Direction) -> Direction:
    """Return the key of a direction that is kept as bits, and any other as it is."""
    return u.key if isinstance(u, Packed) else u
