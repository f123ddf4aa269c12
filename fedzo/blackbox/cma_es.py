"""CMA-ES by pycma, restarted with twice the population whenever it has converged.

    x_k ~ N(m, s^2 C);   m, s, C follow the best half of the sample

Hansen & Ostermeier, "Completely Derandomized Self-Adaptation in Evolution Strategies", Evolutionary
Computation 2001; restarts after Auger & Hansen, "A Restart CMA Evolution Strategy With Increasing
Population Size", CEC 2005; C is diagonal above 200 coordinates (Ros & Hansen, PPSN 2008). All of it
is the package cma; here are its random numbers, which come from streams, and its state: the values
that it was told. pycma is deterministic, so a loaded search is told them again and goes on at the
same bits. Shapes: m [d], a generation [k, d]. Cost: k = 4 + 3 log d evaluations a generation.

Coordinates whose box holds one number are not searched, and beside a single one that is, there is
one that nobody sees, for pycma takes two at least.

Differs from the papers: the start is the first point of the first generation, unless it was
evaluated before (Hansen, "Injecting External Solutions Into CMA-ES", 2011); a restart begins at the
best point of all where there is no box to draw from, and a failed evaluation counts as much as the
worst of its generation.
"""

import math
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fedzo.blackbox.method import FIRST_SPREAD, Ground
from fedzo.config import check_types, require
from fedzo.randomness import stream

if TYPE_CHECKING:
    import cma

LARGEST_FULL = 200
"""Coordinates up to which the whole covariance matrix is learned."""
_QUIET = {"verbose": -9, "verb_log": 0, "verb_disp": 0, "seed": math.nan, "verb_filenameprefix": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class CmaSettings:
    """Settings of `cma`; popsize 0: 4 + 3 log d, and at least as many as are evaluated at a time.

    sigma: first standard deviation of a coordinate, in units of the box's width.
    """

    popsize: int = 0
    sigma: float = FIRST_SPREAD

    def __post_init__(self) -> None:
        check_types(self)
        require(self.popsize == 0 or self.popsize >= 4, "popsize", self.popsize, "0 or at least 4")
        require(0 < self.sigma < math.inf, "sigma", self.sigma, "positive and finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class CmaState:
    """What the search was told: the values of all generations one after the other."""

    told: Float[Tensor, " q"]


class CmaSearch:
    """The method `cma`; what it holds beside states is what pycma has made of one of them."""

    name = "cma"
    ranks = True

    def __init__(
        self, ground: Ground, settings: CmaSettings | None = None, *, asks_start: bool = True
    ) -> None:
        self._ground, self._settings = ground, settings or CmaSettings()
        self._asks_start = asks_start
        self._live: _Live | None = None

    def init(self) -> CmaState:
        return CmaState(told=torch.empty(0, dtype=torch.float64))

    def propose(self, state: CmaState) -> tuple[CmaState, Float[Tensor, "k d"]]:
        return state, torch.from_numpy(np.array(self._at(state).asked))

    def absorb(
        self, state: CmaState, points: Float[Tensor, "k d"], values: Float[Tensor, " k"]
    ) -> CmaState:
        live = self._at(state)
        live.tell(values.numpy())
        return CmaState(told=torch.cat([state.told, values]))

    def around(self, state: CmaState) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        center, spread = self._at(state).around()
        return torch.from_numpy(center), torch.from_numpy(spread)

    def finished(self, state: CmaState) -> str:
        return ""

    def _at(self, state: CmaState) -> "_Live":
        """Return pycma as it is once it was told so much."""
        if self._live is None or self._live.count != len(state.told):
            self._live = _Live(self._ground, self._settings, asks_start=self._asks_start)
            told = state.told.numpy()
            while self._live.count < len(told):
                first = self._live.count
                self._live.tell(told[first : first + len(self._live.asked)])
        return self._live


class _Live:
    """pycma between two generations, the next one sampled."""

    def __init__(self, ground: Ground, settings: CmaSettings, *, asks_start: bool) -> None:
        self._ground, self._settings = ground, settings
        self._free = np.flatnonzero(ground.lower.numpy() < ground.upper.numpy())
        self._unseen = max(0, 2 - len(self._free))
        self._restarts = 0
        self._best, self._height = ground.start.numpy(), math.inf
        self._popsize = settings.popsize or usual_popsize(ground)
        self._es = self._begun(self._best)
        if asks_start:
            self._es.inject([self._known(self._best, 0.0)], force=True)
        self.count = 0
        self._sampled = self._sample()
        self.asked = self._asked()
        """The generation [k, d] that is to be evaluated."""
        if asks_start:
            self.asked[0] = self._best  # pycma has moved it off a bound

    def tell(self, values: NDArray[np.float64]) -> None:
        """Take in the values of the generation that was asked, and sample the next one."""
        self.count += len(values)
        told = np.isfinite(values)
        if told.any():
            lowest = int(np.where(told, values, np.inf).argmin())
            if values[lowest] < self._height:
                self._best = self.asked[lowest]
                self._height = float(values[lowest])
            with _quietly():
                self._es.tell(self._sampled, np.where(told, values, values[told].max()).tolist())
                ended = bool(self._es.stop())
            if ended:
                self._restarts += 1
                self._es = self._begun(self._restart_point())
        self._sampled = self._sample()
        self.asked = self._asked()

    def _asked(self) -> list[NDArray[np.float64]]:
        return [self._whole(x) for x in self._sampled]

    def around(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean and the standard deviations of the coordinates."""
        with _quietly():
            result = self._es.result
        spread = np.zeros(self._ground.dim)
        spread[self._free] = np.asarray(result.stds)[: len(self._free)]
        return self._whole(np.asarray(result.xfavorite)), spread

    def _whole(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the point of what pycma knows of it."""
        point = self._ground.start.numpy().copy()
        point[self._free] = x[: len(self._free)]
        return point

    def _known(self, point: NDArray[np.float64], unseen: float) -> NDArray[np.float64]:
        """Return what pycma knows of a point."""
        return np.append(point[self._free], np.full(self._unseen, unseen))

    def _sample(self) -> list[NDArray[np.float64]]:
        with _quietly():
            return [np.asarray(x) for x in self._es.ask()]

    def _restart_point(self) -> NDArray[np.float64]:
        low, high = self._ground.lower.numpy(), self._ground.upper.numpy()
        drawn = stream(self._ground.seed, "restart", self._restarts)
        boxed = np.isfinite(low) & np.isfinite(high)
        inside = drawn.uniform(np.where(boxed, low, 0.0), np.where(boxed, high, 1.0))
        return np.where(boxed, inside, self._best)

    def _begun(self, start: NDArray[np.float64]) -> "cma.CMAEvolutionStrategy":
        """Return pycma at its start, drawing from a stream of this restart."""
        import cma

        ground = self._ground
        generator = stream(ground.seed, "cma", self._restarts)
        options: dict[str, Any] = {
            **_QUIET,
            "randn": _Normals(generator),
            "popsize": self._popsize * 2**self._restarts,
            "CMA_diagonal": ground.dim > LARGEST_FULL,
            "minstd": self._known(ground.least.numpy() / 5, 0.0) if not ground.is_real else 0,
        }
        bounds = [_ends(self._known(ground.lower.numpy(), -math.inf))]
        bounds.append(_ends(self._known(ground.upper.numpy(), math.inf)))
        if any(end is not None for ends in bounds for end in ends):
            options["bounds"] = bounds
        with _quietly():
            first = self._known(start, 0.0)
            return cma.CMAEvolutionStrategy(first, self._settings.sigma, options)


def usual_popsize(ground: Ground) -> int:
    """Return how many points a generation has: at least as many as are evaluated at a time."""
    return max(4 + int(3 * math.log(ground.dim)), ground.parallel)


@dataclass(frozen=True, slots=True)
class _Normals:
    """What draws as numpy's randn does, of its shapes, from a generator that is copied with it."""

    generator: np.random.Generator

    def __call__(self, *size: int) -> Any:
        return self.generator.standard_normal(size if size else None)


def _ends(bound: NDArray[np.float64]) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in bound.tolist()]


def _quietly() -> AbstractContextManager[object]:
    """Return what keeps pycma's warnings about its own bookkeeping from the user."""
    return warnings.catch_warnings(action="ignore")
