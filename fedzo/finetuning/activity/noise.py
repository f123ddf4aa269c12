"""The signs that sites are given: one keyed direction, read on and on.

The numbers of a step follow those of the step before, so a place in the direction is the whole
state, and the bits depend on the seed and that place alone (fedzo.estimation.keys). Some numbers
are drawn ahead: a few take as long as 10,000. Memory: 256 KiB, or the numbers of one call.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.estimation.keys import Key

_AHEAD = 1 << 16


@dataclass(slots=True)
class Noise:
    """A key, and how many of its numbers have been used."""

    key: Key
    place: int = 0
    _first: int = field(default=0, init=False)
    _drawn: Float[Tensor, " k"] = field(default_factory=lambda: torch.empty(0), init=False)

    def take(self, size: int, device: torch.device) -> Float[Tensor, " k"]:
        """Return the next numbers, which nobody may write to."""
        begin = self.place - self._first
        if begin < 0 or begin + size > len(self._drawn) or self._drawn.device != device:
            begin, self._first = 0, self.place
            stop = self.place + max(size, _AHEAD)
            self._drawn = self.key.draw(self.place, stop, device=device)
        self.place += size
        return self._drawn[begin : begin + size]
