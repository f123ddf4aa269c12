"""The method `auto`: a surrogate while it helps, then CMA-ES from the best point.

    real coordinates:   fzoos, until its line search fails or its steps have shrunk; then cma
    whole numbers, choices:   cma from the start, for slopes say nothing there
    constraints:              cma from the start, which needs no more than an order

A surrogate of slopes leads on smooth functions, where it needs fewer evaluations than CMA-ES, and
cannot leave the valley in which it has ended; CMA-ES starts from there as wide as at first. The
rule is fedzo's own; docs/results/blackbox.md says where it wins and loses.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.blackbox.cma_es import CmaSearch, CmaState
from fedzo.blackbox.method import Ground
from fedzo.blackbox.slope_search import SlopeSearch, SlopeSettings, SlopeState


def surrogate_settings(dim: int) -> SlopeSettings:
    """Return settings of a search that ends before it has converged: there is a successor.

    Later in many dimensions, where a round sees few of them and CMA-ES is slow.
    """
    return SlopeSettings(patience=max(4, dim // 8), least_step=3e-3 * min(1.0, 10 / dim) ** 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoState:
    """The states of both methods, the best point, which method searches, and why."""

    slopes: SlopeState
    cma: CmaState
    best: Float[Tensor, " d"]
    value: float
    handed: bool
    why: str


class AutoSearch:
    """The method `auto`."""

    name = "auto"
    ranks = False

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._slopes = SlopeSearch(ground, surrogate_settings(ground.dim))
        self._cma: CmaSearch | None = None

    def init(self) -> AutoState:
        steps = int((self._ground.least > 0).sum())
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
            handed=bool(steps) or self._ground.constrained,
            why=why,
        )

    def propose(self, state: AutoState) -> tuple[AutoState, Float[Tensor, "k d"]]:
        if state.handed:
            return state, self._successor(state).propose(state.cma)[1]
        slopes, points = self._slopes.propose(state.slopes)
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
        slopes = self._slopes.absorb(state.slopes, points, values)
        ended = self._slopes.finished(slopes)
        why = f"{state.why}; then cma from the best point, because {ended}" if ended else state.why
        return replace(state, slopes=slopes, handed=bool(ended), why=why)

    def around(self, state: AutoState) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        if state.handed:
            return self._successor(state).around(state.cma)
        return self._slopes.around(state.slopes)

    def finished(self, state: AutoState) -> str:
        return ""

    def _successor(self, state: AutoState) -> CmaSearch:
        """Return CMA-ES from the best point that the surrogate has found."""
        if self._cma is None:
            self._cma = CmaSearch(replace(self._ground, start=state.best))
        return self._cma
