"""A look along one line across the box: does the function go up and down there?

    values f(x + t e_i) at irregular t across the box, and f(x) once more
    rough:   the values turn at least twice, and a polynomial of degree 4 leaves more than LEFT of
             their variance unexplained; but f(x) has come out the same

Functions of many valleys (Ackley, Rastrigin, Levy, Schwefel) do so along any coordinate; smooth
ones, bent and badly scaled ones, and |x| do not. Noise turns too, and is told by f(x). The rule is
fedzo's own, and chosen on these functions: docs/results/blackbox.md. Cost: POINTS evaluations.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.blackbox.method import Ground
from fedzo.randomness import stream

POINTS = 17
"""Evaluations of a look: 16 along the line, and one again where it begins."""
LEFT, TURNS, DEGREE = 0.004, 2, 4
_ROUNDING = 1e-12
"""Changes of such a share of the values are rounding."""


class Line:
    """A line through a point along a coordinate that is drawn, as far as the box goes."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        drawn = stream(ground.seed, "line")
        free = np.flatnonzero((ground.lower < ground.upper).numpy())
        self._axis = int(drawn.choice(free)) if len(free) else 0
        count = POINTS - 1
        self._at = torch.from_numpy((np.arange(count) + drawn.uniform(size=count)) / count)

    def points(self, x: Float[Tensor, " d"]) -> Float[Tensor, "q d"]:
        """Return x, and the points along the line."""
        ends = self._ground.lower[self._axis], self._ground.upper[self._axis]
        here, low, high = float(x[self._axis]), float(ends[0]), float(ends[1])
        low = low if math.isfinite(low) else here - 0.5
        high = high if math.isfinite(high) else here + 0.5
        found = x.repeat(POINTS, 1)
        found[1:, self._axis] = low + self._at * (high - low)
        return found

    def roughness(self, points: Float[Tensor, "k d"], values: Float[Tensor, " k"]) -> str:
        """Return what is rough along the line, of values at x and at `points`; else nothing."""
        along, told = self._at, values[2:]
        known = told.isfinite()
        if values[0] != values[1] or int(known.sum()) <= 2 * DEGREE:
            return ""
        heights = told[known].double().numpy()
        heights = heights - heights.mean()
        size, whole = np.abs(told[known].numpy()).max(), float(heights @ heights)
        up = np.sign(np.diff(heights))
        turns = int((up[1:] * up[:-1] < 0).sum())
        if turns < TURNS or whole <= len(heights) * (_ROUNDING * size) ** 2:
            return ""
        base = np.polynomial.chebyshev.chebvander(2 * along[known].numpy() - 1, DEGREE)
        rest = heights - base @ np.linalg.lstsq(base, heights, rcond=None)[0]
        left = float(rest @ rest) / whole * (len(heights) - 1) / (len(heights) - 1 - DEGREE)
        return f"it turns {turns} times along a line" if left > LEFT else ""
