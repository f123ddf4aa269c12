"""Keyed directions: any block of a vector of any length, drawn without the rest of it.

    Key(seed, parts, law, direction)  ->  the numbers start, ..., stop - 1 of direction u

The parts are hashed into the 64-bit key of Philox 4x32-10 (fedzo.estimation.philox) and the number
of the direction is the upper half of its counter, so a direction has up to 2^64 numbers, whose bits
depend on the key and on their place: not on the block in which they are drawn, on the device, or on
the library's logarithm (fedzo.estimation.laws). float64 gets the float32 numbers, bfloat16 and
float16 the same rounded. Shapes: u [d]. Memory besides the result: 4 MiB (GPU: 256 MiB), and 8 MiB
of blocks, at most: a step of central differences reads its direction three times.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int32, Num
from torch import Tensor

from fedzo.config import require
from fedzo.estimation.direction import Direction
from fedzo.estimation.laws import normals, signs
from fedzo.estimation.philox import low_and_high, philox
from fedzo.randomness import Part, key64

Law = Literal["gaussian", "rademacher"]

_MADE: dict[str, tuple[int, int, Callable[[Int32[Tensor, "4 n"]], Num[Tensor, " k"]]]] = {
    "gaussian": (4, 1 << 16, normals),
    "rademacher": (128, 1 << 20, signs),
    "words": (4, 1 << 17, lambda words: words.T.reshape(-1)),
}
"""Numbers that a counter makes, how many are drawn at once to stay in the cache, and how."""
_AT_ONCE_ON_GPU = 1 << 22
"""So many that the start of 200 kernels does not count."""


_SMALL, _MIDDLE = 1 << 13, 1 << 16
"""Numbers of blocks that are kept: drawing few takes as long as drawing so many."""
_LONGEST_KEPT = 1 << 20
"""Normals of longer stretches are drawn whenever they are needed, as signs are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Direction):
    """One direction: number `direction` of the stream that belongs to `seed` and `parts`.

    Its numbers are standard normals or signs. Raises ConfigError for another law.
    """

    seed: int
    parts: tuple[Part, ...] = ()
    law: Law = "rademacher"
    direction: int = 0

    def __post_init__(self) -> None:
        require(self.law in get_args(Law), "law", self.law, f"one of {', '.join(get_args(Law))}")
        require(0 <= self.direction < 1 << 64, "direction", self.direction, "a number of 64 bits")

    def at(self, direction: int) -> "Key":
        """Return the key of another direction of the same stream."""
        return replace(self, direction=direction)

    def words(
        self, start: int, stop: int, *, device: torch.device | str = "cpu"
    ) -> Int32[Tensor, " k"]:
        """Return the random words start, ..., stop - 1 that the direction is made of."""
        return self._fill(
            torch.empty(stop - start, dtype=torch.int32, device=device), start, "words"
        )

    def fill_(self, out: Float[Tensor, " k"], start: int) -> Float[Tensor, " k"]:
        """Write the direction's numbers from `start` on into a vector, which is returned."""
        return self._fill(out, start, self.law)

    def _fill(
        self, out: Num[Tensor, " k"], start: int, what: Law | Literal["words"]
    ) -> Num[Tensor, " k"]:
        size, kept = _SMALL, _small_block
        if len(out) > _SMALL:
            is_costly = what == "gaussian" and out.device.type == "cpu"
            if not is_costly or len(out) > _LONGEST_KEPT:
                return self._draw(out, start, what)
            size, kept = _MIDDLE, _middle_block
        stop = start + len(out)
        for number in range(start // size, -(-stop // size)):
            first = number * size
            low, high = max(start, first), min(stop, first + size)
            block = kept(self, what, number, str(out.device))
            out[low - start : high - start] = block[low - first : high - first]
        return out

    def _draw(
        self, out: Num[Tensor, " k"], start: int, what: Law | Literal["words"]
    ) -> Num[Tensor, " k"]:
        each, at_once, make = _MADE[what]
        step = at_once if out.device.type == "cpu" else _AT_ONCE_ON_GPU
        pair, upper = low_and_high(key64(self.seed, *self.parts)), low_and_high(self.direction)
        stop = start + len(out)
        for low in range(start - start % each, stop, step):
            high, begin = min(low + step, stop), max(low, start)
            count = -(-(high - low) // each)
            drawn = make(philox(pair, upper, low // each, count, device=out.device))
            out[begin - start : high - start] = drawn[begin - low : high - low]
        return out


def _block(
    size: int, key: Key, what: Law | Literal["words"], number: int, device: str
) -> Num[Tensor, " k"]:
    """Return block number `number`, drawn once for all clients, tensors and ends of a direction."""
    kind = torch.int32 if what == "words" else torch.float32
    return key._draw(torch.empty(size, dtype=kind, device=device), number * size, what)


_small_block = functools.lru_cache(maxsize=128)(functools.partial(_block, _SMALL))
_middle_block = functools.lru_cache(maxsize=16)(functools.partial(_block, _MIDDLE))
