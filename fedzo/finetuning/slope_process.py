"""The gradient as a Gaussian process sees it: slopes of several steps, from where they were asked.

    cov(D_u f(x), D_v f(y)) = k(r) [u.v - (u.r)(v.r) / l^2],   r = x - y,   k(r) = exp(-|r|^2/2l^2)
    g = sum_j w_j k(r_j) [u_j - r_j (u_j.r_j) / l^2],   r_j = x - x_j,   (K + lambda I) w = c

Shu, Dai, Sng, Verma, Jaillet & Low, "Zeroth-Order Optimization with Trajectory-Informed Derivative
Estimation", ICLR 2023 (ZoRD), equation 5; Mueller, von Rohr & Trimpe, "Local policy search with
Bayesian optimization", NeurIPS 2021 (GIBO). The last steps' slopes say less the further x has gone
from them, where ReLIZO's least squares take them as new; with no older step both are the same.
Cost: m forward passes and one a step. Memory: x at the last steps, and their keys. Differs: slopes
are observed and not values, so a batch's level does not matter; all is told in inner products of
directions and moves, so no matrix is larger than the slopes; l is the likeliest of multiples of how
far x has moved.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.estimation.direction import Direction
from fedzo.estimation.estimate import Estimate
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.schemes import SCHEMES
from fedzo.estimation.structured import Fixed
from fedzo.estimation.view import View
from fedzo.finetuning.finding import ByValues, Found
from fedzo.finetuning.recovery import asked_slopes, nothing_found, products
from fedzo.finetuning.samplers import Keyed
from fedzo.finetuning.variance_reduced import flat
from fedzo.finite import all_finite

_MULTIPLES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True, slots=True)
class _Step:
    x: Float[Tensor, " d"]
    directions: Sequence[Direction]
    slopes: Float[Tensor, " m"]


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Inner products of n directions and of the moves r [s] from where they were asked to x."""

    directions: Float[Tensor, "n n"]
    to_moves: Float[Tensor, "n s"]
    moves: Float[Tensor, "s s"]
    steps: Tensor
    """In which step each direction was asked [n]."""

    def covariance(self, lengthscale: float) -> Float[Tensor, "n n"]:
        """Return the prior covariance of the slopes, times l^2."""
        of = self.steps
        square = self.moves.diagonal()
        distance = (square[:, None] + square - 2 * self.moves)[of][:, of].clamp(min=0)
        across = self.to_moves[:, of]
        along = across - across.diagonal()[:, None]  # u_i . (x_i - x_j)
        cross = along * -along.T  # and u_j . (x_i - x_j)
        return (-distance / (2 * lengthscale**2)).exp() * (self.directions - cross / lengthscale**2)


class SlopeProcess:
    """Finds the mean of the gradient at x, given the slopes of this step and the last ones.

    older: steps that are used again. ridge: lambda, as a share of the mean diagonal. lengthscale:
    0 for the likeliest.
    """

    def __init__(
        self,
        view: View,
        *,
        seed: int,
        mu: float,
        num_directions: int,
        older: int,
        ridge: float,
        lengthscale: float,
    ) -> None:
        require(older >= 0, "older", older, "0 or more")
        require(ridge > 0, "ridge", ridge, "positive")
        usable = lengthscale == 0 or 1e-30 <= lengthscale <= 1e30
        require(usable, "lengthscale", lengthscale, "0 (the likeliest), or from 1e-30 to 1e30")
        self._view, self._ridge, self._lengthscale = view, ridge, lengthscale
        self._new = ByValues(Keyed(seed, "gaussian"), SCHEMES["forward"], mu, num_directions)
        self._most = older + 1
        self._held: deque[_Step] = deque(maxlen=self._most)

    def find(self, place: InPlace, step: int) -> Found:
        new = asked_slopes(self._new, place, step)
        if not new.directions:
            return nothing_found(new.loss)
        here = flat(self._view)
        held = [*self._held, _Step(here, new.directions, new.slopes)][-self._most :]
        asked = [u for one in held for u in one.directions]
        moves = [Fixed(here - one.x) for one in held]
        geometry = self._geometry(held, asked, moves)
        told = torch.cat([one.slopes for one in held])
        lengthscale = self._lengthscale or self._likeliest(geometry, told)
        factor = self._factor(geometry, lengthscale)
        if factor is None:  # x or a slope is too large to be squared
            return nothing_found(new.loss)
        self._held.append(held[-1])
        w = torch.cholesky_solve(told[:, None], factor)[:, 0]
        of = geometry.steps
        w = w * (-geometry.moves.diagonal()[of] / (2 * lengthscale**2)).exp()
        own = geometry.to_moves.gather(1, of[:, None])[:, 0]
        back = torch.zeros(len(moves), dtype=torch.float64).index_add_(0, of, -w * own)
        return Found(Estimate([*asked, *moves], torch.cat([w, back / lengthscale**2])), new.loss)

    def _geometry(
        self, held: Sequence[_Step], asked: Sequence[Direction], moves: Sequence[Direction]
    ) -> _Geometry:
        n, counts = len(asked), torch.tensor([len(one.directions) for one in held])
        gram = products([*asked, *moves], self._view).cpu()
        steps = torch.arange(len(moves)).repeat_interleave(counts)
        return _Geometry(gram[:n, :n], gram[:n, n:], gram[n:, n:], steps)

    def _likeliest(self, geometry: _Geometry, told: Float[Tensor, " n"]) -> float:
        """Return the length that makes the slopes likeliest, of multiples of a usual move."""
        lengths = geometry.moves.diagonal().clamp(min=0).sqrt()
        gone = lengths[lengths > 0]
        if not len(gone) or not bool(told.any()):
            return 1.0
        tried = [float(gone.median()) * multiple for multiple in _MULTIPLES]
        return max(tried, key=lambda length: self._evidence(geometry, told, length))

    def _evidence(
        self, geometry: _Geometry, told: Float[Tensor, " n"], lengthscale: float
    ) -> float:
        """Return the log likelihood of slopes at their best scale, but for a constant."""
        factor = self._factor(geometry, lengthscale)
        if factor is None:
            return -math.inf
        white = torch.linalg.solve_triangular(factor, told[:, None], upper=False)
        spread = len(told) / 2 * float(white.square().sum().log())
        return -spread - float(factor.diagonal().log().sum())

    def _factor(self, geometry: _Geometry, lengthscale: float) -> Float[Tensor, "n n"] | None:
        """Return the Cholesky factor of the slopes' covariance; None where numbers overflow."""
        covariance = geometry.covariance(lengthscale)
        noise = self._ridge * covariance.diagonal().mean()
        unit = torch.eye(len(covariance), dtype=covariance.dtype)
        factor, failed = torch.linalg.cholesky_ex(covariance + noise * unit)
        return None if bool(failed) or not all_finite(factor) else factor
