"""MicroAdam: Adam whose moments are the largest numbers of the last gradients, and what was left.

    a = g + e;   I = the k largest |a|,  V = a[I];   e <- Q(a without I)
    m = (1-b1) sum_r b1^r V_r / (1-b1^t),   s = (1-b2) sum_r b2^r V_r^2 / (1-b2^t)
    x <- x - lr m / (sqrt(s) + eps)

The sums are over the last min(t, window) steps, r of them ago. Modoranu et al., "MicroAdam:
Accurate Adaptive Optimization with Low Space Overhead and Provable Convergence", NeurIPS 2024,
algorithm 1. Memory: d / 2 bytes of e and window k places and numbers, k = 1 % of d, where Adam
has two vectors. Shapes: x [d] or [n, d], row by row.

Differs from the paper: the largest of the whole vector, not of blocks; V in the gradient's type; Q
rounds to the nearest of a block's 15 symmetric steps (fedzo.compression.integer).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.compression.integer import Integer
from fedzo.config import check_types, require, require_nonnegative

_RESIDUAL = Integer(4, "nearest", 64)


@dataclass(frozen=True, slots=True)
class MicroAdamState:
    """Steps taken, places and numbers of the last ones, the newest last, and the residual."""

    count: int
    places: Int[Tensor, "w n k"]
    numbers: Float[Tensor, "w n k"]
    residual: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroAdam:
    """density: share of the numbers that a step keeps; window: steps that are remembered."""

    density: float = 0.01
    window: int = 10
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.density <= 1, "density", self.density, "above 0, at most 1")
        require(self.window >= 1, "window", self.window, "at least 1")
        for name in ("beta1", "beta2"):
            beta = getattr(self, name)
            require(0 <= beta < 1, name, beta, "at least 0 and below 1")
        require_nonnegative("eps", self.eps)

    def init(self, x: Float[Tensor, "*n d"]) -> MicroAdamState:
        """Return the state before the first step."""
        rows = x.reshape(-1, x.shape[-1])
        none = rows.new_empty(0, len(rows), self._kept(rows))
        return MicroAdamState(
            0, none.to(torch.int64), none, _RESIDUAL.encode(torch.zeros_like(rows), None)
        )

    def step(
        self,
        state: MicroAdamState,
        x: Float[Tensor, "*n d"],
        gradient: Float[Tensor, "*n d"],
        lr: float,
    ) -> tuple[MicroAdamState, Float[Tensor, "*n d"]]:
        """Return the next state and the next x."""
        rows = gradient.reshape(-1, gradient.shape[-1])
        total = rows + _RESIDUAL.decode(state.residual, rows.shape[1]).to(rows)
        places = total.abs().topk(self._kept(rows), dim=1).indices
        numbers = total.gather(1, places)
        left = total.scatter(1, places, 0.0)
        after = MicroAdamState(
            state.count + 1,
            torch.cat([state.places, places.unsqueeze(0)])[-self.window :],
            torch.cat([state.numbers, numbers.unsqueeze(0)])[-self.window :],
            _RESIDUAL.encode(left, None),
        )
        first = self._mean(after, after.numbers, self.beta1, rows)
        second = self._mean(after, after.numbers.square(), self.beta2, rows)
        moved = first / (second.sqrt() + self.eps)
        return after, torch.sub(x, moved.reshape(x.shape), alpha=lr)

    def _kept(self, rows: Float[Tensor, "n d"]) -> int:
        return min(rows.shape[1], math.ceil(self.density * rows.shape[1]))

    def _mean(
        self, state: MicroAdamState, numbers: Tensor, beta: float, like: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """Return the moment that these numbers at the state's places make."""
        found = torch.zeros_like(like)
        for ago, (where, what) in enumerate(
            zip(reversed(state.places), reversed(numbers), strict=True)
        ):
            found.scatter_add_(1, where, (1 - beta) * beta**ago * what)
        return found / (1 - beta**state.count)
