"""What x may be moved along: a vector of which any block can be written without the rest.

Number j of a direction belongs to number j of x, whatever the tensors that x is cut into, and its
bits do not depend on the block in which it is written.
"""

from abc import abstractmethod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Direction(Protocol):
    """A vector u with as many numbers as whoever asks wants.

    One that is 0 outside of a stretch of x may tell it: see `misses`.
    """

    __slots__ = ()

    @abstractmethod
    def fill_(self, out: Float[Tensor, " k"], start: int) -> Float[Tensor, " k"]:
        """Write the numbers from `start` on into a vector, which is returned."""

    def draw(
        self,
        start: int,
        stop: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Float[Tensor, " k"]:
        """Return the numbers start, ..., stop - 1."""
        return self.fill_(torch.empty(stop - start, dtype=dtype, device=device), start)


def misses(u: Direction, start: int, stop: int) -> bool:
    """Return whether all these numbers are known to be 0: by `span`, the stretch of the others."""
    span: tuple[int, int] | None = getattr(u, "span", None)
    return span is not None and (stop <= span[0] or span[1] <= start)
