"""The method `auto`: a surrogate while it helps, then CMA-ES from the best point.

    real coordinates:   fzoos, until its line search fails or its steps have shrunk; then cma
    above 32 of them:   after 10 d evaluations cma is tried for 5 d, and stays if it got lower
    whole numbers, choices:   cma from the start, for slopes say nothing there
    constraints:              cma from the start, which needs no more than an order
    few evaluations:          cma from the start has generations of 5

A surrogate of slopes leads on smooth functions, where it needs fewer evaluations than CMA-ES, and
cannot leave the valley in which it has ended; CMA-ES starts from there as wide as at first, or goes
on where a trial of its own from there has ended. In many
dimensions it goes on where few line searches fail, so it may stay in a valley for long, and is
asked to prove itself once. The rule is fedzo's own; docs/results/blackbox.md says where it wins and
loses.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.blackbox.cma_es import CmaSearch, CmaSettings, CmaState, usual_popsize
from fedzo.blackbox.method import Ground
from fedzo.blackbox.slope_search import SlopeSearch, SlopeSettings, SlopeState

SMALL, FEW = 5, 30
"""Points of small generations, and how many usual ones are few: chosen on two functions of mixed
variables, 30 to 240 evaluations, 12 seeds, where 4 and 5 were better than 6, 8 and the usual 9."""
MANY, TRIAL_AFTER, TRIAL = 32, 10, 5
"""Coordinates above which CMA-ES is tried, and evaluations a coordinate before and in its trial."""


def surrogate_settings(dim: int) -> SlopeSettings:
    """Return settings of a search that ends before it has converged: there is a successor.

    Later in many dimensions, where a round sees few of them and CMA-ES is slow.
    """
    return SlopeSettings(patience=max(4, dim // 8), least_step=3e-3 * min(1.0, 10 / dim) ** 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoState:
    """The states of both methods, the best point, which method searches, and why.

    asked: evaluations so far. begun: where cma has begun, or begins. trial: of cma.
    """

    slopes: SlopeState
    cma: CmaState
    best: Float[Tensor, " d"]
    value: float
    asked: int
    begun: Float[Tensor, " d"]
    trial: Literal["ahead", "on", "over"]
    handed: bool
    why: str


def _new() -> CmaState:
    return CmaState(told=torch.empty(0, dtype=torch.float64))


class AutoSearch:
    """The method `auto`."""

    name = "auto"
    ranks = False

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._slopes = SlopeSearch(ground, surrogate_settings(ground.dim))
        self._cma: CmaSearch | None = None
        self._begun = ground.start
        self._at_once = ground.constrained or not ground.is_real

    def init(self) -> AutoState:
        steps = int((self._ground.least > 0).sum())
        why = "fzoos, because all coordinates are real numbers"
        if self._ground.constrained:
            why = "cma, because points may be infeasible"
        elif steps:
            why = f"cma, because {steps} of {self._ground.dim} coordinates move in steps"
        return AutoState(
            slopes=self._slopes.init(),
            cma=_new(),
            best=self._ground.start,
            value=math.inf,
            asked=0,
            begun=self._ground.start,
            trial="ahead" if self._ground.dim > MANY else "over",
            handed=self._at_once,
            why=why,
        )

    def propose(self, state: AutoState) -> tuple[AutoState, Float[Tensor, "k d"]]:
        if state.handed or state.trial == "on":
            return state, self._successor(state).propose(state.cma)[1]
        slopes, points = self._slopes.propose(state.slopes)
        return replace(state, slopes=slopes), points

    def absorb(
        self, state: AutoState, points: Float[Tensor, "k d"], values: Float[Tensor, " k"]
    ) -> AutoState:
        state = replace(state, asked=state.asked + len(points))
        if state.handed:
            cma = self._successor(state).absorb(state.cma, points, values)
            return replace(state, cma=cma)
        if state.trial == "on":
            return self._on_trial(state, points, values)
        lowest = int(values.argmin())
        if float(values[lowest]) < state.value:
            state = replace(state, best=points[lowest].clone(), value=float(values[lowest]))
        slopes = self._slopes.absorb(state.slopes, points, values)
        ended = self._slopes.finished(slopes)
        if ended:
            tried = len(state.cma.told) > 0 and torch.equal(state.begun, state.best)
            cma = state.cma if tried else _new()  # it would ask the points of its trial again
            start = "where its trial ended" if tried else "the best point"
            why = f"{state.why}; then cma from {start}, because {ended}"
            state = replace(state, handed=True, why=why, begun=state.best, cma=cma)
        elif state.trial == "ahead" and state.asked >= TRIAL_AFTER * self._ground.dim:
            state = replace(state, trial="on", begun=state.best)
        return replace(state, slopes=slopes)

    def around(self, state: AutoState) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        if state.handed or state.trial == "on":
            return self._successor(state).around(state.cma)
        return self._slopes.around(state.slopes)

    def finished(self, state: AutoState) -> str:
        return ""

    def _successor(self, state: AutoState) -> CmaSearch:
        """Return CMA-ES from the best point that the surrogate had found."""
        if self._cma is None or not torch.equal(self._begun, state.begun):
            ground = replace(self._ground, start=state.begun)
            self._cma = CmaSearch(ground, self._settings(), asks_start=self._at_once)
            self._begun = state.begun
        return self._cma

    def _settings(self) -> CmaSettings:
        """Return settings of CMA-ES: smaller generations where it begins with little to spend."""
        usual, budget = usual_popsize(self._ground), self._ground.budget
        small = self._at_once and budget is not None and budget < FEW * usual
        return CmaSettings(popsize=max(SMALL, self._ground.parallel) if small else 0)

    def _on_trial(
        self, state: AutoState, points: Float[Tensor, "k d"], values: Float[Tensor, " k"]
    ) -> AutoState:
        """Go on with CMA-ES at the end of its trial where it got lower; else with the surrogate."""
        cma = self._successor(state).absorb(state.cma, points, values)
        if len(cma.told) < TRIAL * self._ground.dim:
            return replace(state, cma=cma)
        if float(cma.told.min()) < state.value:
            why = f"{state.why}; then cma, which got lower in a trial of {len(cma.told)}"
            return replace(state, cma=cma, trial="over", handed=True, why=why)
        return replace(state, cma=cma, trial="over")
