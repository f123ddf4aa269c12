"""FZooS for one function: slopes around x, a walk on their surrogate, a line search.

    1. values at x + r u_j along m orthonormal directions   ->  slopes   (fedzo.surrogates.slopes)
    2. virtual steps downhill on the posterior mean of the gradient      (fedzo.surrogates.descent)
    3. values at a few points of the walk; x becomes the lowest of them

Shu, Lin, Dai & Low, "Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
Gradients", arXiv 2308.04077, algorithm 1. Differs as strategies.surrogate.fzoos_improved does,
with one client. Besides, the radius r shrinks with the step of the line search, so that slopes stay
local where the function bends; and points of the walk are compared by their values where the fit
finds no noise, else by what the surrogate expects of them. Shapes: x [d], rows [r, d]. Cost: m + 4
evaluations a round; r^3 / 3 + r^2 d a round, and some twenty times that where the prior is fitted:
in rounds 1 to 4 and every `fit_every` rounds.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.blackbox.method import Ground
from fedzo.config import check_types, require
from fedzo.estimation.directions import basis_blocks
from fedzo.objectives.box import project
from fedzo.randomness import stream
from fedzo.surrogates.descent import virtual_steps
from fedzo.surrogates.kernels import KernelName
from fedzo.surrogates.slope_geometry import centered, geometry
from fedzo.surrogates.slope_posterior import SlopePosterior, condition, fit
from fedzo.surrogates.slopes import (
    SlopePrior,
    SlopeRows,
    join_rows,
    no_rows,
    rows_between,
    rows_from,
)

STOPS = (1, 3, 6, 10)
FEW_DIRECTIONS = 5
PROBE_RADIUS = 0.02
_FIRST_FITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeSettings:
    """Settings of `fzoos`; lengths in units of the box's width.

    num_directions: slopes a round; 0: 5, above 50 coordinates 10. probe_radius: root mean square
    offset of a coordinate. initial_step, max_step: how far a virtual step moves a coordinate.
    max_rows: newest slopes that are kept. fit_every: rounds between two fits of the prior.
    patience: failed line searches in a row, and least_step: the share of initial_step, after which
    the search has ended.
    """

    num_directions: int = 0
    probe_radius: float = PROBE_RADIUS
    initial_step: float = 0.03
    max_step: float = 0.1
    max_rows: int = 200
    fit_every: int = 8
    patience: int = 8
    least_step: float = 1e-6
    kernel: KernelName = "matern52"

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_directions >= 0, "num_directions", self.num_directions, "at least 0")
        for name in ("max_rows", "fit_every", "patience"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("probe_radius", "initial_step", "max_step", "least_step"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "positive and finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeState:
    """The iterate with its value and number, the surrogate, the step, and what is asked now."""

    x: Float[Tensor, " d"]
    value: float
    point: int
    rows: SlopeRows
    prior: SlopePrior
    step: float
    phase: Literal["start", "probe", "walk"] = "start"
    round_index: int = 0
    next_row: int = 0
    next_point: int = 1
    stalled: int = 0


class SlopeSearch:
    """The method `fzoos`."""

    name = "fzoos"
    ranks = False

    def __init__(self, ground: Ground, settings: SlopeSettings | None = None) -> None:
        self._ground, self._settings = ground, settings or SlopeSettings()
        usual = FEW_DIRECTIONS if ground.dim <= 50 else 2 * FEW_DIRECTIONS
        wanted = self._settings.num_directions or usual
        self._probes = min(max(wanted, ground.parallel), ground.dim)

    def init(self) -> SlopeState:
        x, settings = self._ground.start, self._settings
        prior = SlopePrior(
            kernel=settings.kernel,
            lengthscale=16 * settings.initial_step * math.sqrt(len(x)),
        )
        return SlopeState(
            x=x, value=math.inf, point=0, rows=no_rows(x), prior=prior, step=settings.initial_step
        )

    def propose(self, state: SlopeState) -> tuple[SlopeState, Float[Tensor, "k d"]]:
        if state.phase == "start":
            return state, self._start(state).unsqueeze(0)
        if state.phase == "probe":
            return state, self._ends(state)
        posterior = self._posterior(state)
        path = virtual_steps(
            posterior.gradient,
            state.x,
            state.step,
            rule="normalized",
            stops=STOPS,
            lower=self._ground.lower,
            upper=self._ground.upper,
        )
        return replace(state, prior=posterior.prior), path

    def absorb(
        self, state: SlopeState, points: Float[Tensor, "k d"], values: Float[Tensor, " k"]
    ) -> SlopeState:
        state = replace(state, next_point=state.next_point + len(points))
        if state.phase == "start":
            known = bool(values[0].isfinite())
            return replace(
                state,
                x=points[0] if known else state.x,
                value=float(values[0]),
                phase="probe" if known else "start",
                next_row=state.next_row + (not known),
            )
        number = state.next_point - len(points)
        if state.phase == "probe":
            change = values - state.value
            here = state.x.expand_as(points)
            rows = rows_from(here, points, change, start=state.point, first_end=number)
            told = replace(
                state,
                rows=join_rows([state.rows, rows], most=self._settings.max_rows),
                next_row=state.next_row + len(points),
                round_index=state.round_index + 1,
            )
            return replace(told, phase="walk" if len(told.rows) else "probe")
        return self._walked(replace(state, phase="probe"), points, values, number)

    def around(self, state: SlopeState) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        return state.x, torch.full_like(state.x, self._radius(state))

    def finished(self, state: SlopeState) -> str:
        if state.stalled >= self._settings.patience:
            return f"the line search has failed {state.stalled} times in a row"
        short = state.step < self._settings.least_step * self._settings.initial_step
        return f"steps have shrunk to {state.step:.1e} of the width of the box" if short else ""

    def _start(self, state: SlopeState) -> Float[Tensor, " d"]:
        """Return the start; where it has failed, points around it."""
        if not state.next_row:
            return project(state.x, self._ground.lower, self._ground.upper)
        drawn = stream(self._ground.seed, "start", state.next_row).standard_normal(len(state.x))
        away = state.x + 0.1 * torch.from_numpy(drawn)
        return project(away, self._ground.lower, self._ground.upper)

    def _radius(self, state: SlopeState) -> float:
        settings = self._settings
        return settings.probe_radius * min(1.0, state.step / settings.initial_step)

    def _ends(self, state: SlopeState) -> Float[Tensor, "m d"]:
        """Return the ends of the next probes; clipped to the box."""
        dim = len(state.x)
        first = torch.tensor([state.next_row])
        u = basis_blocks(first, self._probes, dim, seed=self._ground.seed)[0]
        away = u * (self._radius(state) * math.sqrt(dim))
        low, high = self._ground.lower, self._ground.upper
        return project(state.x + away, low, high)

    def _posterior(self, state: SlopeState) -> SlopePosterior:
        """Return the surrogate at x, its prior fitted anew where that is due."""
        seen = centered(state.rows, state.x)
        shape = geometry(seen, seen)
        due = state.round_index <= _FIRST_FITS or state.round_index % self._settings.fit_every == 0
        if not due:
            return condition(state.prior, seen, 1, shape=shape)
        unit = self._settings.initial_step * math.sqrt(len(state.x))
        return fit(state.prior, seen, shape, 1, prior_grids(state.prior, unit))

    def _walked(
        self,
        state: SlopeState,
        path: Float[Tensor, "s d"],
        values: Float[Tensor, " s"],
        number: int,
    ) -> SlopeState:
        """Add the values along the path to the rows, and move to the lowest of its points."""
        rows = _chain(state, path, values, number)
        state = replace(state, rows=join_rows([state.rows, rows], most=self._settings.max_rows))
        told = values.isfinite()
        if not bool(told.any()):
            return self._stalled(state)
        expected = self._expected(state, path, values)
        best = int(expected.argmin())
        if not float(expected[best]) < 0:
            return self._stalled(state)
        step = state.step
        if best == len(path) - 1:
            step = min(self._settings.max_step, 1.5 * step)
        elif best == 0:
            step = step / 2
        return replace(
            state,
            x=path[best],
            value=float(values[best]),
            point=number + best,
            step=step,
            stalled=0,
        )

    def _expected(
        self, state: SlopeState, path: Float[Tensor, "s d"], values: Float[Tensor, " s"]
    ) -> Float[Tensor, " s"]:
        """Return the change from x to each point of the path, inf for failures."""
        if not state.prior.noise:
            return values - state.value
        points = torch.cat([state.x.unsqueeze(0), path])
        posterior = condition(state.prior, centered(state.rows, state.x), 1)
        changes = posterior.change(points[:-1], points[1:]).cumsum(0)
        return torch.where(values.isfinite(), changes, torch.inf)

    def _stalled(self, state: SlopeState) -> SlopeState:
        return replace(state, step=state.step / 4, stalled=state.stalled + 1)


def _chain(
    state: SlopeState, path: Float[Tensor, "s d"], values: Float[Tensor, " s"], number: int
) -> SlopeRows:
    """Return the rows from x to the first point of the walk, from there to the next, and so on."""
    points = torch.cat([state.x.unsqueeze(0), path])
    heights = torch.cat([values.new_tensor([state.value]), values])
    numbers = torch.tensor([state.point, *range(number, number + len(path))])
    told = heights.isfinite()
    points, heights, numbers = points[told], heights[told], numbers[told]
    return rows_between(
        points[:-1],
        points[1:],
        heights.diff(),
        owners=torch.zeros(len(points) - 1, 1, dtype=torch.int64),
        start=numbers[:-1],
        end=numbers[1:],
    )


def prior_grids(prior: SlopePrior, unit: float) -> list[tuple[str, list[float]]]:
    """Return the values that a fit tries, around the current ones; unit: a first virtual step."""
    around = [prior.lengthscale * 2.0**k for k in range(-3, 4)]
    lengths = sorted({min(max(length, unit / 8), 256 * unit) for length in around})
    bends = [max(prior.curvature, 1 / unit) * 4.0**k for k in range(-2, 3)]
    return [
        ("lengthscale", lengths),
        ("curvature", [0.0, *(c for c in bends if c * unit <= 64)]),
        ("noise", [0.0, *(unit**2 * 10.0**k for k in range(-7, 1))]),
    ]
