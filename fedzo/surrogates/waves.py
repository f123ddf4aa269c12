"""The gradient of a function of large images: a Gaussian process in its lowest cosine waves.

    g = sum_k s_k w_k c_k,   w ~ N(0, I),   s_k^2 = 2 pi l^2 exp(-l^2 |omega_k|^2 / 2)
    row: a change v of the image and the change y of the function,   y = <g, v> + noise
    A_i = (s_k <c_k, v_i>)_k,   E = diag((noise^2 + jitter) |A_i|^2)
    sample = spread a w0 + A^T (A A^T + E)^-1 (y - spread a (A w0 + e)),   e ~ N(0, E)  (Matheron)
    a^2 = y^T (A A^T + E)^-1 y / r

c_k are the orthonormal cosine waves (DCT-II) of a channel, of frequency omega_k, those with
l |omega| below 3.7, beyond which the prior's variance is a thousandth: as many as the length l
asks for, whatever the image's size. This is the prior of fedzo.surrogates.spatial (Rasmussen &
Williams, "Gaussian Processes for Machine Learning", 2006, section 4.2.1: the spectral density of
its covariance) with independent channels. A row is kept as its coefficients A_i, float32, and the
Cholesky factor of A A^T + E grows by a row an answer.

Shapes: moves [d], rows [p], p = channels times waves. Cost of a sample and of a row, r being there:
r^2 + r p, and d times the waves of a side for its cosines.
"""

import functools
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_WIDEST = 3.7
_JITTER = 1e-6
_KEPT = 0.75
"""The share of the rows that stays when there are too many, the newest."""


class WavePrior:
    """The covariance of gradients: shape is (channels, height, width), lengthscale in pixels."""

    def __init__(self, shape: tuple[int, int, int], lengthscale: float) -> None:
        self.shape, self.lengthscale = shape, lengthscale
        self._down, self._along = (_cosines(side, lengthscale) for side in shape[1:])
        rows, columns = (
            torch.arange(len(waves), dtype=torch.float64) * (math.pi * lengthscale / side)
            for waves, side in zip((self._down, self._along), shape[1:], strict=True)
        )
        squared = rows.square().unsqueeze(1) + columns.square()
        self._std = (math.sqrt(2 * math.pi) * lengthscale * (-squared / 4).exp()).float()
        self.dim = shape[0] * self._std.numel()

    def color(self, white: Float[Tensor, " p"]) -> Float[Tensor, " d"]:
        """Return the gradient of white coordinates."""
        table = white.reshape(self.shape[0], *self._std.shape) * self._std
        return (self._down.T @ table @ self._along).reshape(-1)

    def adjoint(self, move: Float[Tensor, " d"]) -> Float[Tensor, " p"]:
        """Return a change where white coordinates see it: <color(w), v> = <w, adjoint(v)>."""
        table = self._down @ move.float().reshape(self.shape) @ self._along.T
        return (table * self._std).reshape(-1)


@functools.lru_cache(maxsize=16)
def _cosines(side: int, lengthscale: float) -> Float[Tensor, "k s"]:
    """Return the orthonormal cosine waves of a line that the prior has."""
    count = min(side, math.ceil(side * _WIDEST / (math.pi * lengthscale)) + 1)
    place = (torch.arange(side, dtype=torch.float64) + 0.5) * (math.pi / side)
    waves = torch.cos(torch.arange(count).unsqueeze(1) * place) * math.sqrt(2 / side)
    waves[0] = 1 / math.sqrt(side)
    return waves.float()


class WaveRows:
    """Rows seen so far, at most `most` (2 or more); beyond, the newest three quarters stay.

    noise: deviation of a row's noise, relative to the prior's deviation of that row.
    """

    def __init__(self, dim: int, *, most: int, noise: float) -> None:
        self._most, self._noise, self._count = most, noise, 0
        self._rows = torch.empty(min(most, 64), dim)
        self._change = torch.empty(most, dtype=torch.float64)
        self._own = torch.empty(most, dtype=torch.float64)
        self._factor = torch.zeros(most, most, dtype=torch.float64)

    def __len__(self) -> int:
        return self._count

    def add(self, row: Float[Tensor, " p"], change: float) -> None:
        """Take in what a change of the image has changed; one of no waves at all says nothing."""
        variance = float(row @ row)
        if variance <= 0:
            return
        if self._count == self._most:
            self._forget()
        n = self._count
        if n == len(self._rows):
            more = torch.empty(min(2 * n, self._most) - n, self._rows.shape[1])
            self._rows = torch.cat([self._rows, more])
        own = (self._noise**2 + _JITTER) * variance
        against = (self._rows[:n] @ row).double().unsqueeze(1)
        solved = torch.linalg.solve_triangular(self._factor[:n, :n], against, upper=False)[:, 0]
        left = max(variance + own - float(solved @ solved), own / 2)
        self._factor[n, :n], self._factor[n, n] = solved, math.sqrt(left)
        self._rows[n], self._change[n], self._own[n] = row, change, math.sqrt(own)
        self._count = n + 1

    def sample(self, *, spread: float, generator: np.random.Generator) -> Float[Tensor, " p"]:
        """Draw white coordinates from the posterior, deviations from the mean times `spread`."""
        drawn = generator.standard_normal(self._rows.shape[1], dtype=np.float32)
        white, n = torch.from_numpy(drawn), self._count
        if not n:
            return white
        rows, change = self._rows[:n], self._change[:n]
        errors = torch.from_numpy(generator.standard_normal(n)) * self._own[:n]
        both = torch.stack([change, (rows @ white).double() + errors], dim=1)
        solved = torch.cholesky_solve(both, self._factor[:n, :n])
        amplitude = math.sqrt(max(float(change @ solved[:, 0]) / n, 1e-24))
        weights = solved[:, 0] - spread * amplitude * solved[:, 1]
        return spread * amplitude * white + weights.float() @ rows

    def _forget(self) -> None:
        kept = int(_KEPT * self._most)
        for column in (self._rows, self._change, self._own):
            column[:kept] = column[self._count - kept : self._count].clone()
        gram = (self._rows[:kept] @ self._rows[:kept].T).double()
        gram.diagonal().add_(self._own[:kept].square())
        self._factor[:kept, :kept] = torch.linalg.cholesky(gram)
        self._count = kept
