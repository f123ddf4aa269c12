"""The method `auto`: a surrogate while it helps, then CMA-ES from the best point.

    real coordinates:   a look along lines (fedzo.blackbox.line); where it goes up and down:  cma
    otherwise:          fzoos, until its line search fails or its steps have shrunk; then cma
    whole numbers, choices:   cma from the start, for slopes say nothing there
    constraints:              cma from the start, which needs no more than an order
    few evaluations:          cma from the start has generations of 5

A surrogate of slopes leads on smooth functions, where it needs fewer evaluations than CMA-ES, and
cannot leave the valley in which it has ended; CMA-ES starts from there as wide as at first. The
rule is fedzo's own; docs/results/blackbox.md says where it wins and loses.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.blackbox.cma_es import CmaSearch, CmaSettings, CmaState, usual_popsize
from fedzo.blackbox.line import Lines
from fedzo.blackbox.method import Ground
from fedzo.blackbox.slope_search import SlopeSearch, SlopeSettings, SlopeState

SMALL, FEW = 5, 30
"""Points of small generations, and how many usual ones are few: chosen on two functions of mixed
variables, 30 to 240 evaluations, 12 seeds, where 4 and 5 were better than 6, 8 and the usual 9."""
WORTH = 10
"""Times the evaluations of a look along lines that a budget must be to have one."""


def surrogate_settings(dim: int) -> SlopeSettings:
    """Return settings of a search that ends before it has converged: there is a successor.

    Later in many dimensions, where a round sees few of them and CMA-ES is slow.
    """
    return SlopeSettings(patience=max(4, dim // 8), least_step=3e-3 * min(1.0, 10 / dim) ** 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoState:
    """The states of both methods, the best point, which method searches, and why.

    looked: whether there was a look along lines, or is to be none. begun: where cma begins.
    """

    slopes: SlopeState
    cma: CmaState
    best: Float[Tensor, " d"]
    value: float
    begun: Float[Tensor, " d"]
    looked: bool
    handed: bool
    why: str


class AutoSearch:
    """The method `auto`."""

    name = "auto"
    ranks = False

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._slopes = SlopeSearch(ground, surrogate_settings(ground.dim))
        self._lines = Lines(ground)
        self._cma: CmaSearch | None = None
        self._begun = ground.start
        self._at_once = ground.constrained or not ground.is_real

    def init(self) -> AutoState:
        steps, budget = int((self._ground.least > 0).sum()), self._ground.budget
        little = budget is not None and budget < WORTH * self._lines.num_points
        why = "fzoos, because all coordinates are real numbers"
        if self._ground.constrained:
            why = "cma, because points may be infeasible"
        elif steps:
            why = f"cma, because {steps} of {self._ground.dim} coordinates move in steps"
        return AutoState(
            slopes=self._slopes.init(),
            cma=CmaState(told=torch.empty(0, dtype=torch.float64)),
            best=self._ground.start,
            value=math.inf,
            begun=self._ground.start,
            looked=self._at_once or little,
            handed=self._at_once,
            why=why,
        )

    def propose(self, state: AutoState) -> tuple[AutoState, Float[Tensor, "k d"]]:
        if state.handed:
            return state, self._successor(state).propose(state.cma)[1]
        slopes, points = self._slopes.propose(state.slopes)
        if not state.looked:
            return state, torch.cat([points, self._lines.points(points[0])])
        return replace(state, slopes=slopes), points

    def absorb(
        self, state: AutoState, points: Float[Tensor, "k d"], values: Float[Tensor, " k"]
    ) -> AutoState:
        if state.handed:
            cma = self._successor(state).absorb(state.cma, points, values)
            return replace(state, cma=cma)
        lowest = int(values.argmin())
        if float(values[lowest]) < state.value:
            state = replace(state, best=points[lowest].clone(), value=float(values[lowest]))
        told = "" if state.looked else self._lines.roughness(float(values[0]), values[1:])
        if told:
            why = f"cma, because {told}"
            return replace(state, looked=True, handed=True, why=why, begun=state.best)
        if not state.looked:
            points, values = points[:1], values[:1]
        slopes = self._slopes.absorb(state.slopes, points, values)
        state = replace(state, slopes=slopes, looked=True)
        if ended := self._slopes.finished(slopes):
            why = f"{state.why}; then cma from the best point, because {ended}"
            return replace(state, handed=True, why=why, begun=state.best)
        return state

    def around(self, state: AutoState) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        if state.handed:
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
