"""What the slope surrogate believes of grad F, and the fit of its hyper-parameters.

    mean         g(x) = J(x)^T alpha,  J(x)[r] = cov(grad F(x), row r),  alpha = K^-1 s
    log evidence -(r / 2) log(s^T alpha / r) - sum log diag chol K     (amplitude profiled out)

Hyper-parameters are chosen on grids, one after the other, by the evidence: a few factorizations
where a gradient search would take many and stop in the first local maximum. Everything as defined
in fedzo.surrogates.slopes; shapes as there. Cost: one r^3 / 3 for every candidate, and the kernel
anew for every lengthscale.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.surrogates.factorization import factorize
from fedzo.surrogates.kernels import derivatives, distances_of_products, first_at_zero
from fedzo.surrogates.slope_geometry import (
    BLOCK,
    CenteredRows,
    Covariance,
    Geometry,
    centered,
    geometry,
)
from fedzo.surrogates.slopes import JITTER, SlopePrior, SlopeRows, newest


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopePosterior:
    """The surrogate conditioned on rows, which may lie in several tables of one center."""

    prior: SlopePrior
    parts: Sequence[CenteredRows]
    num_clients: int
    covariance: Float[Tensor, "r r"]
    weights: Float[Tensor, " r"]

    def gradient(self, x: Float[Tensor, "q d"]) -> Float[Tensor, "q d"]:
        """Return the posterior mean of grad F at each point."""
        local = x - self.parts[0].center
        common = (self.weights / (1 + self.prior.rho)).split([len(part) for part in self.parts])
        told = [
            _gradient(self.prior, part, weights, local)
            for part, weights in zip(self.parts, common, strict=True)
        ]
        return functools.reduce(torch.add, told)

    def change(self, a: Float[Tensor, "q d"], b: Float[Tensor, "q d"]) -> Float[Tensor, " q"]:
        """Return the expected F(b) - F(a), by the derivative at the midpoint."""
        return ((b - a) * self.gradient((a + b) / 2)).sum(1)

    def extended(self, rows: SlopeRows, *, most: int) -> "SlopePosterior":
        """Return the surrogate of the newest `most` rows once these have come: only their strip
        of the covariance is made.
        """
        fresh = centered(rows, self.parts[0].center)
        strip = torch.cat([self._between(part, fresh) for part in self.parts])
        old, total = len(self.covariance), len(self.covariance) + len(fresh)
        covariance = strip.new_empty(total, total)
        covariance[:old, :old] = self.covariance
        covariance[:old, old:], covariance[old:, :old] = strip, strip.T
        covariance[old:, old:] = self._between(fresh, fresh)
        kept = slice(max(0, total - most), None)
        parts = newest([*self.parts, fresh], most)
        return _solved(self.prior, parts, self.num_clients, covariance[kept, kept])

    def _between(self, a: CenteredRows, b: CenteredRows) -> Float[Tensor, "r q"]:
        return geometry(a, b).covariance(self.prior, self.num_clients).matrix()


def condition(
    prior: SlopePrior,
    rows: CenteredRows,
    num_clients: int,
    *,
    shape: Geometry | None = None,
) -> SlopePosterior:
    """Return the surrogate conditioned on the rows; `shape` is their geometry, if it is at hand."""
    shape = shape or geometry(rows, rows)
    return _solved(prior, [rows], num_clients, shape.covariance(prior, num_clients).matrix())


def _solved(
    prior: SlopePrior,
    parts: Sequence[CenteredRows],
    num_clients: int,
    covariance: Float[Tensor, "r r"],
    factor: Float[Tensor, "r r"] | None = None,
) -> SlopePosterior:
    """Return the surrogate of a covariance without jitter; `factor` is that of it with jitter."""
    slope = torch.cat([part.rows.slope for part in parts])
    factor = _factorize(covariance) if factor is None else factor
    weights = torch.cholesky_solve(slope.unsqueeze(1), factor).squeeze(1)
    return SlopePosterior(
        prior=prior, parts=parts, num_clients=num_clients, covariance=covariance, weights=weights
    )


def _gradient(
    prior: SlopePrior,
    part: CenteredRows,
    common: Float[Tensor, " r"],
    local: Float[Tensor, "q d"],
) -> Float[Tensor, "q d"]:
    """Return what one table says of the gradient at points seen from the center."""
    direction = part.rows.direction
    square = (local * local).sum(-1)
    squared = distances_of_products(local @ part.offset.T, square, part.square)
    phi = derivatives(prior.kernel, squared, prior.lengthscale)
    origin = first_at_zero(prior.kernel, prior.lengthscale)
    near = phi.first * common / origin
    bend = 2 * phi.second / origin * common * (local @ direction.T - part.along)
    result = near @ direction + bend.sum(1, keepdim=True) * local - bend @ part.offset
    if prior.curvature:
        result = result + prior.curvature**2 * (common @ part.along) * local
    return result


def explained_variance(
    prior: SlopePrior, seen: CenteredRows, shape: Geometry, num_clients: int
) -> float:
    """Return by how much rows reduce the trace of the covariance of grad F at their center,
    whatever their slopes, in units of the prior variance of one component of a client's gradient.
    """
    factor = _factorize(shape.covariance(prior, num_clients).matrix())
    told = 0.0
    for known in _gradient_covariance(prior, seen):
        told += float(torch.linalg.solve_triangular(factor, known, upper=False).square().sum())
    return told


def _gradient_covariance(prior: SlopePrior, seen: CenteredRows) -> Iterator[Float[Tensor, "r _"]]:
    """Yield columns of cov(row, grad F(center)) under the prior; the trend has no gradient there.

    A block at a time, because a whole table is as large as all the rows in memory.
    """
    phi = derivatives(prior.kernel, seen.square.unsqueeze(1), prior.lengthscale)
    origin = first_at_zero(prior.kernel, prior.lengthscale)
    bend = 2 * phi.second * seen.along.unsqueeze(1)
    size = max(1, BLOCK // max(1, len(seen)))
    tables = (seen.rows.direction.split(size, dim=1), seen.offset.split(size, dim=1))
    for direction, offset in zip(*tables, strict=True):
        yield (phi.first * direction).add_(bend * offset).div_(origin).div_(1 + prior.rho)


def fit(
    prior: SlopePrior,
    rows: CenteredRows,
    shape: Geometry,
    num_clients: int,
    grids: Sequence[tuple[str, Sequence[float]]],
) -> SlopePosterior:
    """Return the surrogate whose hyper-parameters are each the best of its grid and its own."""
    best = shape.covariance(prior, num_clients)
    height, factor = _evidence(best, rows.rows)
    for name, grid in grids:
        for value in grid:
            changed = replace(best.prior, **{name: value})  # type: ignore[arg-type]
            if changed == best.prior:
                continue
            trial = shape.covariance(changed, num_clients, like=best)
            evidence, its_factor = _evidence(trial, rows.rows)
            if evidence > height:
                best, height, factor = trial, evidence, its_factor
    return _solved(best.prior, [rows], num_clients, best.matrix(), factor)


def log_evidence(prior: SlopePrior, rows: SlopeRows, shape: Geometry, num_clients: int) -> float:
    """Return the log marginal likelihood of the slopes up to a constant."""
    return _evidence(shape.covariance(prior, num_clients), rows)[0]


def _evidence(covariance: Covariance, rows: SlopeRows) -> tuple[float, Float[Tensor, "r r"] | None]:
    """Return the log evidence, and the factor of the covariance where it has one."""
    matrix = covariance.matrix()
    matrix.diagonal().add_(_jitter(matrix))
    factor, info = torch.linalg.cholesky_ex(matrix)
    if info:
        return -math.inf, None
    whitened = torch.linalg.solve_triangular(factor, rows.slope.unsqueeze(1), upper=False)
    amplitude = float(whitened.square().mean())
    if amplitude <= 0:
        return -math.inf, None
    height = -0.5 * len(rows) * math.log(amplitude) - float(factor.diagonal().log().sum())
    return height, factor


def _factorize(covariance: Float[Tensor, "r r"]) -> Float[Tensor, "r r"]:
    return factorize(covariance, _jitter(covariance))


def _jitter(covariance: Float[Tensor, "r r"]) -> float:
    """Return the jitter, less than in proportion where a trend inflates the diagonal."""
    size = covariance.diagonal().mean()
    return float(JITTER * torch.minimum(size, size.sqrt()))
