"""What passes through a network have found, kept until the next question.

DIFF2 asks at x_r and x_{r-1}, then at x_{r+1} and x_r: half of it was known. A memo belongs to one
data set; it forgets what was asked at any other point, and keeps no more floats than it may. What
is found in it is what would be computed again, so nothing but the time depends on it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.privacy.layers import Layer, squared

Key = tuple[int, ...]


@dataclass(slots=True)
class LayersMemo:
    """The last passes: piece of the data -> the points and what the layers have seen at each.

    It is of one data set at a time: other inputs or targets make it forget.
    """

    _data: tuple[Tensor, ...] = ()
    _kept: dict[Key, list[tuple[Tensor, list[Layer]]]] = field(default_factory=dict)
    _floats: int = 0
    _squares: Tensor | None = None

    def get(
        self,
        key: Key,
        x: Float[Tensor, "n d"],
        compute: Callable[[Tensor], list[Layer]],
        *,
        data: tuple[Tensor, ...],
        most: int,
    ) -> list[Layer]:
        """Return what is kept of a piece at x, or compute it; keeps the last two points of each."""
        self._belong_to(data)
        kept = self._kept.setdefault(key, [])
        for point, layers in kept:
            if torch.equal(point, x):
                return layers
        found = compute(x)
        size = _floats(found)
        while kept and (len(kept) > 1 or self._floats + size > most):
            self._floats -= _floats(kept.pop(0)[1])
        if self._floats + size <= most:
            kept.append((x.clone(), found))
            self._floats += size
        return found

    def squares(self, data: tuple[Tensor, ...]) -> Float[Tensor, " t"]:
        """Return the squared norms of the inputs, the first of the data, in float64."""
        self._belong_to(data)
        if self._squares is None:
            self._squares = squared(data[0])
        return self._squares

    def _belong_to(self, data: tuple[Tensor, ...]) -> None:
        """Forget everything unless it is of these data."""
        if len(data) != len(self._data) or any(
            a is not b for a, b in zip(data, self._data, strict=True)
        ):
            self._data, self._kept, self._floats, self._squares = data, {}, 0, None


def _floats(layers: list[Layer]) -> int:
    """Return the floats that a pass holds beside the data, the inputs of the first layer."""
    return sum(e.slopes.numel() for e in layers) + sum(a.inputs.numel() for a in layers[1:])
