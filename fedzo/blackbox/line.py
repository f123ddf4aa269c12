"""A look along lines across the box: would slopes lead downhill?

    values f(x + t e_i) at irregular t across the box, and f(x) once more
    valleys: the values turn at least twice, a polynomial of degree 4 leaves more than LEFT of their
             variance unexplained, and f(x) has come out the same
    noise:   f(x) has not, and the rest of the fit is above LOUD r sqrt(d) times the width of the
             fit, about what probes of root mean square offset r a coordinate change

Functions of many valleys (Ackley, Rastrigin, Levy, Schwefel) turn so along any coordinate; smooth
ones, bent and badly scaled ones, and |x| do not. The rule is fedzo's own, and chosen on functions
that docs/results/blackbox.md names. Cost: 17 evaluations, or 33.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.blackbox.method import Ground
from fedzo.blackbox.slope_search import PROBE_RADIUS
from fedzo.randomness import stream

ALONG, MANY = 16, 32
"""Evaluations along a line, and coordinates above which there are two."""
LEFT, TURNS, DEGREE = 0.004, 2, 4
LOUD = 2.0
"""Times the change that slopes are taken from, which noise must be to hide it."""
_ROUNDING = 1e-12
"""Changes of such a share of the values are rounding."""


class Lines:
    """Lines through a point along coordinates that are drawn, as far as the box goes.

    One; above MANY coordinates two, for where valleys lie askew, one coordinate shows less of them.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        drawn = stream(ground.seed, "lines")
        free = np.flatnonzero((ground.lower < ground.upper).numpy())
        count = min(1 + (ground.dim > MANY), len(free))
        self._axes = [int(axis) for axis in drawn.choice(free, count, replace=False)]
        places = np.arange(ALONG) + drawn.uniform(size=(count, ALONG))
        self._at = torch.from_numpy(places / ALONG)

    @property
    def num_points(self) -> int:
        """How many evaluations a look takes."""
        return 1 + self._at.numel()

    def points(self, x: Float[Tensor, " d"]) -> Float[Tensor, "q d"]:
        """Return x, and the points along the lines."""
        found = x.repeat(self.num_points, 1)
        for number, (axis, at) in enumerate(zip(self._axes, self._at, strict=True)):
            low, high = (float(end[axis]) for end in (self._ground.lower, self._ground.upper))
            low = low if math.isfinite(low) else float(x[axis]) - 0.5
            high = high if math.isfinite(high) else float(x[axis]) + 0.5
            found[1 + number * ALONG : 1 + (number + 1) * ALONG, axis] = low + at * (high - low)
        return found

    def roughness(self, here: float, values: Float[Tensor, " q"]) -> str:
        """Return what speaks against slopes along the lines; nothing where nothing does.

        here: the value at x; values: those at `points`, x again and along the lines.
        """
        told = values[1:].reshape(-1, ALONG)
        fits = [fit for t, v in zip(self._at, told, strict=True) if (fit := _fitted(t, v))]
        if not fits:
            return ""
        if float(values[0]) == here:
            turns = max(fit.turns * (fit.left > LEFT) for fit in fits)
            return f"it turns {turns} times along a line" if turns >= TURNS else ""
        noise = float(np.median([fit.rest for fit in fits]))
        change = float(np.median([fit.width for fit in fits]))
        probes = PROBE_RADIUS * math.sqrt(self._ground.dim) * change
        return "noise hides how it changes nearby" if noise > LOUD * probes else ""


class _Fit(NamedTuple):
    """Values along a line, and the polynomial through them.

    turns: of the values; left: share of their variance that is not explained; rest: standard
    deviation of that; width: of the polynomial's values.
    """

    turns: int
    left: float
    rest: float
    width: float


def _fitted(at: Float[Tensor, " k"], values: Float[Tensor, " k"]) -> _Fit | None:
    """Return what values along a line do; None where too few are known, or all is rounding."""
    known = values.isfinite()
    told = values[known].double().numpy()
    freedom = len(told) - 1 - DEGREE
    if freedom < DEGREE:
        return None
    heights = told - told.mean()
    whole = float(heights @ heights)
    if whole <= len(told) * (_ROUNDING * np.abs(told).max()) ** 2:
        return None
    up = np.sign(np.diff(heights))
    base = np.polynomial.chebyshev.chebvander(2 * at[known].numpy() - 1, DEGREE)
    path = base @ np.linalg.lstsq(base, heights, rcond=None)[0]
    rest = float(((heights - path) ** 2).sum()) / freedom
    turns = int((up[1:] * up[:-1] < 0).sum())
    return _Fit(turns, rest / whole * (len(told) - 1), math.sqrt(rest), float(np.ptp(path)))
