"""A Gaussian process on the gradient of a function of images: neighboring pixels matter alike.

    g ~ N(0, a^2 K),   K = K_channels x K_rows x K_columns,   K_rows[i, j] = exp(-(i - j)^2 / 2 l^2)
    row: a change v of the image and the change y of the function,  y = <g, v> + noise
    sample = g0 + K V^T (V K V^T + s^2 I)^-1 (y - V g0 - e),   g0 ~ prior, e ~ noise   (Matheron)
    a^2 = y^T (V K V^T + s^2 I)^-1 y / r,   s = noise times the rows' mean prior deviation

One query that changes all pixels at once says one number about the whole gradient, and the prior
makes a few tens of them a usable picture of it. What lies beyond the linear model, the curvature of
the function, is the noise. The amplitude a has the value of most evidence. K is never formed:
its factors are applied along the axes, so images of any size cost 2 d (height + width) a product.
Shapes: moves [r, d], changes [r], d = channels height width. Cost of a sample: r^3 / 3 + r d.

Ru, Cobb, Blaas & Gal, "BayesOpt Adversarial Attack", ICLR 2020, model the loss itself by a GP on
downsampled images; a prior on the gradient, as in the slopes of fedzo.surrogates.slopes, is
fedzo's own.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require

_JITTER = 1e-6


@dataclass(frozen=True, slots=True)
class SpatialPrior:
    """The covariance K: shape is (channels, height, width), lengthscale in pixels.

    A lengthscale of 0 is white noise. Channels are correlated by `channels`, from 0 to 1.
    """

    shape: tuple[int, int, int]
    lengthscale: float
    channels: float = 0.5

    @property
    def is_white(self) -> bool:
        """Whether K is the identity."""
        return self.lengthscale == 0 and self.shape[0] == 1

    def apply(self, moves: Float[Tensor, "r d"]) -> Float[Tensor, "r d"]:
        """Return K v for every row."""
        return self._through(moves, lambda axis: axis @ axis.T)

    def color(self, white: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Return L w for every row, K = L L^T: white noise becomes gradients of the prior."""
        return self._through(white, lambda axis: axis)

    def adjoint(self, moves: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Return L^T v for every row, where white coordinates see it: <L w, v> = <w, L^T v>."""
        return self._through(moves, lambda axis: axis.T)

    def smooth(self, directions: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Return directions of the same lengths, colored; orthonormal ones are so no longer.

        One after the other, for rounding in a batch depends on a matrix's place in memory.
        """
        if self.is_white:
            return directions
        rows = directions.reshape(-1, directions.shape[-1])
        colored = torch.stack([self.color(row.clone()) for row in rows]).reshape(directions.shape)
        pair = (directions, colored)
        lengths, now = (torch.linalg.vector_norm(u, dim=-1, keepdim=True) for u in pair)
        resized: Tensor = colored * (lengths / now)
        return resized

    def sample(self, *, generator: np.random.Generator) -> Float[Tensor, " d"]:
        """Draw a gradient, float32."""
        drawn = generator.standard_normal(int(np.prod(self.shape)), dtype=np.float32)
        return self.color(torch.from_numpy(drawn).unsqueeze(0)).squeeze(0)

    def _through(
        self, rows: Float[Tensor, "*n d"], form: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "*n d"]:
        """Apply a form of each axis' factor; an axis of white noise has none, however long."""
        if self.is_white:
            return rows
        table = rows.reshape(-1, *self.shape)
        if self.lengthscale:
            down, along = (
                form(_axis_factor(count, self.lengthscale).to(rows)) for count in self.shape[1:]
            )
            table = down @ table @ along.T
        if self.shape[0] > 1:
            across = form(_channel_factor(self.shape[0], self.channels).to(rows))
            table = torch.einsum("ij,rjhw->rihw", across, table)
        return table.reshape(rows.shape)


def square_prior(dim: int, lengthscale: float, *, image: bool | None = None) -> SpatialPrior:
    """Return the prior of square images of one channel, or white noise where x is none.

    image: whether x is one; None: it is if it has a square number of coordinates.
    """
    side = math.isqrt(dim)
    if image is False or not lengthscale or side * side != dim:
        return SpatialPrior((1, 1, dim), 0.0)
    return SpatialPrior((1, side, side), lengthscale)


def smooth_directions(
    directions: Float[Tensor, "*n d"], lengthscale: float
) -> Float[Tensor, "*n d"]:
    """Return directions of the same lengths, colored by the prior of square images.

    They are no longer orthonormal: slopes along them say most of a gradient that the prior expects.
    Raises ConfigError for a lengthscale where d is not a square number.
    """
    dim = directions.shape[-1]
    square = math.isqrt(dim) ** 2 == dim
    require(square or not lengthscale, "lengthscale", lengthscale, "0, for x is no square image")
    return square_prior(dim, lengthscale).smooth(directions)


@functools.lru_cache(maxsize=64)
def _axis_factor(count: int, lengthscale: float) -> Float[Tensor, "s s"]:
    place = torch.arange(count, dtype=torch.float64) / lengthscale
    covariance = torch.exp(-0.5 * (place.unsqueeze(1) - place).square())
    factor: Tensor = torch.linalg.cholesky(
        covariance + _JITTER * torch.eye(count, dtype=torch.float64)
    )
    return factor


@functools.lru_cache(maxsize=64)
def _channel_factor(count: int, correlation: float) -> Float[Tensor, "s s"]:
    same = torch.full((count, count), correlation, dtype=torch.float64)
    own = (1 - correlation + _JITTER) * torch.eye(count, dtype=torch.float64)
    factor: Tensor = torch.linalg.cholesky(same + own)
    return factor


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows seen so far: moves, K times them, the function's changes, their noise, V K V^T."""

    moves: Float[Tensor, "r d"]
    smooth: Float[Tensor, "r d"]
    change: Float[Tensor, " r"]
    noise: Float[Tensor, " r"]
    gram: Float[Tensor, "r r"]

    def __len__(self) -> int:
        return len(self.change)


def no_changes(dim: int) -> Changes:
    """Return an empty table."""
    table, row = torch.empty(0, dim), torch.empty(0, dtype=torch.float64)
    return Changes(table, table, row, row, torch.empty(0, 0, dtype=torch.float64))


def add_change(
    rows: Changes,
    prior: SpatialPrior,
    move: Float[Tensor, " d"],
    change: float,
    *,
    noise: float,
    most: int,
) -> Changes:
    """Return the newest `most` rows with one more; noise is relative to the prior deviation."""
    move = move.float().unsqueeze(0)
    smooth = prior.apply(move)
    moves, smooths = torch.cat([rows.moves, move]), torch.cat([rows.smooth, smooth])
    against = (moves @ smooth[0]).double()
    gram = torch.cat([torch.cat([rows.gram, against[:-1].unsqueeze(0)]), against.unsqueeze(1)], 1)
    number = torch.tensor([[change], [noise]], dtype=torch.float64)
    kept = slice(max(0, len(moves) - most), None)
    return Changes(
        moves[kept],
        smooths[kept],
        torch.cat([rows.change, number[0]])[kept],
        torch.cat([rows.noise, number[1]])[kept],
        gram[kept, kept],
    )


def sample_gradient(
    rows: Changes, prior: SpatialPrior, *, spread: float, generator: np.random.Generator
) -> Float[Tensor, " d"]:
    """Draw a gradient from the posterior, its deviations from the mean times `spread`."""
    drawn = prior.sample(generator=generator)
    if not len(rows):
        return drawn
    deviation = rows.noise * rows.gram.diagonal().mean().sqrt()
    factor = _factorize(rows.gram, deviation.square())
    errors = torch.from_numpy(generator.standard_normal(len(rows))) * deviation
    expected = (rows.moves @ drawn).double() + errors
    solved = torch.cholesky_solve(torch.stack([rows.change, expected], dim=1), factor)
    amplitude = ((rows.change @ solved[:, 0]) / len(rows)).clamp(min=1e-24).sqrt()
    weights = solved[:, 0] - spread * amplitude * solved[:, 1]
    return float(spread * amplitude) * drawn + weights.float() @ rows.smooth


def _factorize(gram: Float[Tensor, "r r"], noise: Float[Tensor, " r"]) -> Float[Tensor, "r r"]:
    """Factorize V K V^T + noise; rows of no move at all have no variance of their own."""
    jitter = _JITTER * max(float(gram.diagonal().mean()), 1e-12)
    factor: Tensor = torch.linalg.cholesky(gram + torch.diag(noise + jitter))
    return factor
