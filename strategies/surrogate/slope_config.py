"""Settings of the slope surrogate at the server and of the steps on it, whoever asks and when."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from fedzo.config import check_types, require, require_nonnegative
from fedzo.surrogates.kernels import KernelName
from fedzo.surrogates.slope_geometry import CenteredRows, Geometry
from fedzo.surrogates.slope_posterior import SlopePosterior, condition, fit
from fedzo.surrogates.slopes import SlopePrior
from fedzo.surrogates.spatial import SpatialPrior, square_prior
from strategies.core.rounds import RoundPlan

ENOUGH_DIRECTIONS = 8
"""Shared directions from which one round's moments tell rho; where no round had so many, rho is
fitted by the evidence of rows of different owners."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeConfig:
    """How clients are probed, what the surrogate may be, and how far a round goes on it.

    num_directions a client and round; probe_radius: root mean square offset of a coordinate, in
    units of x; kernel and max_rows of the surrogate; initial_step times sqrt(dim) is the unit of
    its lengthscales.
    initial_step, max_step, min_step: how far a virtual step moves a coordinate, in units of x
    (min_step 0: a millionth of initial_step). step_rule: "normalized" steps along the gradient,
    "sign" along its signs. line_search: virtual steps after which clients are asked, or, where
    nobody waits for that, after which a point may become x.
    curvature: whether the surrogate may have an isotropic quadratic trend. lengthscale: where x is
    a square image, the pixels over which gradients are taken to be smooth, and probes are; 0: not
    at all. design: whether clients probe the same directions or their own; "auto" decides every
    round, with shared ones at least every shared_every rounds; private_gain: by what factor private
    directions must explain more.
    """

    num_directions: int = 50
    probe_radius: float = 0.02
    initial_step: float = 0.03
    max_step: float = 0.1
    min_step: float = 0.0
    step_rule: Literal["normalized", "sign"] = "normalized"
    line_search: str = "1,3,6,10"
    kernel: KernelName = "matern52"
    max_rows: int = 400
    curvature: bool = True
    lengthscale: float = 0.0
    design: Literal["auto", "shared", "private"] = "auto"
    shared_every: int = 8
    private_gain: float = 2.0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("num_directions", "max_rows", "shared_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("probe_radius", "initial_step", "max_step", "private_gain"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "positive and finite")
        require_nonnegative("lengthscale", self.lengthscale)
        self.stops()
        step = self.initial_step
        low = self.min_step
        require(0 <= low <= step, "min_step", low, f"at least 0, at most initial_step={step}")
        require(step <= self.max_step, "initial_step", step, f"at most max_step={self.max_step}")

    def stops(self) -> tuple[int, ...]:
        """Return the stops of the line search; raises ConfigError unless they ascend from 1."""
        try:
            stops = tuple(int(part) for part in self.line_search.split(","))
        except ValueError:
            stops = (0,)
        ascending = stops[0] >= 1 and all(a < b for a, b in pairwise(stops))
        require(ascending, "line_search", self.line_search, "ascending numbers such as 1,3,6,10")
        return stops

    def least_step(self) -> float:
        """Return the step below which the line search does not go."""
        return self.min_step or 1e-6 * self.initial_step

    def probe_length(self, dim: int) -> float:
        """Return the length of a probe's offset."""
        return self.probe_radius * math.sqrt(dim)

    def unit(self, dim: int) -> float:
        """Return the length of the first virtual step: the scale that all lengthscales start at."""
        return self.initial_step * math.sqrt(dim)

    def space(self, dim: int, *, image: bool | None) -> SpatialPrior:
        """Return the prior on the gradient; rows are kept in its white coordinates."""
        return square_prior(dim, self.lengthscale, image=image)

    def first_prior(self, dim: int) -> SlopePrior:
        """Return the surrogate's prior before anything is known.

        Raises ConfigError for a lengthscale where x is no square image.
        """
        square = math.isqrt(dim) ** 2 == dim
        wanted = f"0, for x has {dim} coordinates and is no square image"
        require(square or not self.lengthscale, "lengthscale", self.lengthscale, wanted)
        return SlopePrior(kernel=self.kernel, lengthscale=self.first_lengthscale(dim))

    def first_lengthscale(self, dim: int) -> float:
        """Return the lengthscale before anything is known."""
        return 16 * self.unit(dim)

    def bounded_lengthscale(self, lengthscale: float, dim: int) -> float:
        """Return the nearest lengthscale that a fit may choose."""
        return min(max(lengthscale, self.unit(dim) / 8), 256 * self.unit(dim))

    def grids(
        self, prior: SlopePrior, dim: int, *, fit_rho: bool
    ) -> list[tuple[str, Sequence[float]]]:
        """Return the values that a fit tries: around the current ones, and zero."""
        unit = self.unit(dim)
        lengths = {self.bounded_lengthscale(prior.lengthscale * 2.0**k, dim) for k in range(-3, 4)}
        grids: list[tuple[str, Sequence[float]]] = [("lengthscale", sorted(lengths))]
        if self.curvature:
            around = [max(prior.curvature, 1 / unit) * 4.0**k for k in range(-2, 3)]
            grids.append(("curvature", [0.0, *(c for c in around if c * unit <= 64)]))
        if fit_rho:
            grids.append(("rho", [1 / 3, 1.0, 3.0, 10.0, 30.0]))
        grids.append(("noise", [0.0, *(unit**2 * 10.0**k for k in range(-7, 1))]))
        return grids

    def posterior(
        self,
        prior: SlopePrior,
        seen: CenteredRows,
        shape: Geometry,
        plan: RoundPlan,
        *,
        measured: bool,
    ) -> SlopePosterior:
        """Return the surrogate of the rows, its prior fitted anew in the first and each 4th round.

        measured: whether rho is known otherwise.
        """
        total = plan.num_clients
        if plan.round_index > 4 and plan.round_index % 4:
            return condition(prior, seen, total, shape=shape)
        fit_rho = not measured and total > 1
        return fit(prior, seen, shape, total, self.grids(prior, len(seen.center), fit_rho=fit_rho))
