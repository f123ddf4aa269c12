"""Which directions a step asks along: functions of its number, so that it can be replayed.

| sampler       | direction                                     | weight  | paper                  |
|---------------|-----------------------------------------------|---------|------------------------|
| Keyed         | signs or normals                              | 1 / m   | Malladi 2023 (normals) |
| Blocks        | the same, in turn for each part of the module | parts/m | Zhang 2024             |
| MaskedNumbers | the same where a mask allows                  | 1 / m   | Liu 2024 (Sparse-MeZO) |
| LowRankNoise  | U V^T / sqrt(r), V kept for some steps        | 1 / m   | Chen 2025 (LOZO)       |
| Subspaces     | U Z V^T sqrt(m n) / r, U and V kept           | 1 / m   | Yu 2024 (SubZero)      |
| Axes          | e_j for the numbers that a mask allows        | 1       | Chen 2024 (DeepZero)   |

The estimate weight sum_i c_i u_i is unbiased for the part of the gradient that directions reach.
Directions of a step: m. Memory: masks one byte a number of x, subspaces r (m + n) numbers a matrix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fedzo.estimation.direction import Direction
from fedzo.estimation.keys import Key, Law
from fedzo.estimation.packed import packed
from fedzo.estimation.structured import Axis, LowRank, Masked, Projected, Within, matrix_sizes
from fedzo.estimation.view import View
from fedzo.finetuning.masks import part_span

PURPOSE = "zeroth order"
"""The stream of which all directions of this room are parts."""


@runtime_checkable
class Sampler(Protocol):
    """The directions of each step."""

    def weights(self, known: Bool[Tensor, " m"]) -> Float[Tensor, " m"]:
        """Return what each c_i u_i is multiplied with where these directions have a slope."""
        ...

    def directions(self, step: int, count: int) -> Sequence[Direction]:
        """Return the directions of a step; `count` is the method's number of them."""
        ...


def step_keys(seed: int, step: int, count: int, law: Law, *more: str | int) -> list[Key]:
    """Return the keys of a step's directions; `more` tells several streams of a step apart."""
    stream = Key(seed=seed, parts=(PURPOSE, step, *more), law=law)
    return [stream.at(i) for i in range(count)]


def mean_weights(known: Bool[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Return the weights of a mean over all known slopes."""
    return torch.full((len(known),), 1 / int(known.sum()), dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class Keyed:
    """Signs or normals for all numbers."""

    seed: int
    law: Law = "rademacher"

    def weights(self, known: Bool[Tensor, " m"]) -> Float[Tensor, " m"]:
        return mean_weights(known)

    def directions(self, step: int, count: int) -> Sequence[Direction]:
        return [packed(key) for key in step_keys(self.seed, step, count, self.law)]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Zhang et al., "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A
    Benchmark", ICML 2024: `count` directions for each block, each 0 elsewhere.

    Differs from the paper's code: blocks have noise of their own, and all see the same x.
    """

    seed: int
    parts: Sequence[View]
    law: Law = "rademacher"

    def weights(self, known: Bool[Tensor, " m"]) -> Float[Tensor, " m"]:
        """Return the mean in each block, of which one may have fewer slopes than another."""
        turns = known.view(-1, len(self.parts))
        return turns.sum(dim=0).clamp(min=1).double().reciprocal().repeat(len(turns))

    def directions(self, step: int, count: int) -> Sequence[Direction]:
        keys = step_keys(self.seed, step, count * len(self.parts), self.law)
        return [
            Within(key, part_span(self.parts[i % len(self.parts)])) for i, key in enumerate(keys)
        ]


@dataclass(slots=True)
class MaskedNumbers:
    """Directions that are 0 where a mask says so, made anew every `refresh` steps.

    draw: the mask from the number of the refresh.
    """

    inner: Sampler
    draw: Callable[[int], Bool[Tensor, " d"]]
    refresh: int
    _held: tuple[int, Bool[Tensor, " d"]] | None = None

    def weights(self, known: Bool[Tensor, " m"]) -> Float[Tensor, " m"]:
        return self.inner.weights(known)

    def mask(self, step: int) -> Bool[Tensor, " d"]:
        """Return the mask of a step."""
        turn = step // self.refresh
        if self._held is None or self._held[0] != turn:
            self._held = (turn, self.draw(turn))
        return self._held[1]

    def directions(self, step: int, count: int) -> Sequence[Direction]:
        mask = self.mask(step)
        return [Masked(u, mask) for u in self.inner.directions(step, count)]


@dataclass(frozen=True, slots=True)
class LowRankNoise:
    """U fresh in every step, V kept for `refresh` steps: updates of a period have rank r at most.

    Differs from the paper's code, whose updates leave the probed direction in the step in which V
    is renewed.
    """

    seed: int
    view: View
    rank: int = 2
    refresh: int = 50

    def weights(self, known: Bool[Tensor, " m"]) -> Float[Tensor, " m"]:
        return mean_weights(known)

    def directions(self, step: int, count: int) -> Sequence[Direction]:
        turn = step // self.refresh
        lefts = step_keys(self.seed, step, count, "gaussian", "left")
        rights = step_keys(self.seed, turn, count, "gaussian", "right")
        pairs = zip(lefts, rights, strict=True)
        return [LowRank(self.view, left, right, self.rank) for left, right in pairs]


@dataclass(slots=True)
class Subspaces:
    """Z fresh in every step, in orthonormal bases U and V that are renewed every `refresh` steps.

    one_sided: V is the unit matrix, so a direction is U Z.
    """

    seed: int
    view: View
    rank: int = 16
    refresh: int = 1000
    one_sided: bool = False
    _held: dict[int, dict[str, tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def weights(self, known: Bool[Tensor, " m"]) -> Float[Tensor, " m"]:
        return mean_weights(known)

    def directions(self, step: int, count: int) -> Sequence[Direction]:
        bases = self.bases(step)
        keys = step_keys(self.seed, step, count, "gaussian")
        return [Projected(self.view, key, bases) for key in keys]

    def bases(self, step: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Return U and V of every matrix at a step."""
        turn = step // self.refresh
        if turn not in self._held:
            self._held = {turn: self._draw(turn)}
        return self._held[turn]

    def _draw(self, turn: int) -> dict[str, tuple[Tensor, Tensor]]:
        matrices = {n: t for n, t in zip(self.view.names, self.view, strict=True) if t.dim() > 1}
        bases = {}
        for name, tensor in matrices.items():
            m, n = matrix_sizes(tensor)
            [left] = step_keys(self.seed, turn, 1, "gaussian", "left", name)
            [right] = step_keys(self.seed, turn, 1, "gaussian", "right", name)
            v = (
                torch.eye(n, dtype=torch.float32)
                if self.one_sided
                else _orthonormal(right, n, min(self.rank, n))
            )
            u = _orthonormal(left, m, min(self.rank, m))
            bases[name] = (u.to(tensor.device), v.to(tensor.device))
        return bases


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of the numbers that a mask allows, all of them in every step.

    numbers: the mask of a step.
    """

    numbers: Callable[[int], Bool[Tensor, " d"]]

    def weights(self, known: Bool[Tensor, " m"]) -> Float[Tensor, " m"]:
        return torch.ones(len(known), dtype=torch.float64)

    def directions(self, step: int, count: int) -> Sequence[Direction]:
        return [Axis(number) for number in self.numbers(step).nonzero().flatten().tolist()]


def _orthonormal(key: Key, rows: int, columns: int) -> Float[Tensor, "m r"]:
    """Return a Haar-random basis; drawn and factorized on the CPU, for the same bits everywhere."""
    q, r = torch.linalg.qr(key.draw(0, rows * columns).view(rows, columns).double())
    basis: Tensor = (q * torch.where(r.diagonal() < 0, -1.0, 1.0)).float()
    return basis
