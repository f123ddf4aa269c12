"""What the slope surrogate believes of grad F, and the fit of its hyper-parameters.

    mean         g(x) = J(x)^T alpha,  J(x)[r] = cov(grad F(x), row r),  alpha = K^-1 s
    log evidence -(r / 2) log(s^T alpha / r) - sum log diag chol K     (amplitude profiled out)

Hyper-parameters are chosen on grids, one after the other, by the evidence: a few factorizations
where a gradient search would take many and stop in the first local maximum. Everything as defined
in fedzo.surrogates.slopes; shapes as there. Cost: one r^3 / 3 for every candidate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.surrogates.factorization import factorize
from fedzo.surrogates.kernels import radial, squared_distances
from fedzo.surrogates.slopes import JITTER, Geometry, SlopePrior, SlopeRows, geometry


@dataclass(frozen=True, slots=True)
class SlopePosterior:
    """The surrogate conditioned on rows."""

    prior: SlopePrior
    rows: SlopeRows
    center: Float[Tensor, " d"]
    num_clients: int
    factor: Float[Tensor, "r r"]
    weights: Float[Tensor, " r"]

    def gradient(self, x: Float[Tensor, "q d"]) -> Float[Tensor, "q d"]:
        """Return the posterior mean of grad F at each point."""
        rows, prior = self.rows, self.prior
        common = self.weights / (1 + prior.rho)
        local, center = x - self.center, rows.midpoint - self.center
        phi = radial(prior.kernel, squared_distances(local, center), prior.lengthscale)
        origin = _origin(prior)
        along = (rows.direction * center).sum(1)
        near = phi.first * common / origin
        bend = 2 * phi.second / origin * common * (local @ rows.direction.T - along)
        result = near @ rows.direction + bend.sum(1, keepdim=True) * local - bend @ center
        if prior.curvature:
            result = result + prior.curvature**2 * (common @ along) * local
        return result

    def change(self, a: Float[Tensor, "q d"], b: Float[Tensor, "q d"]) -> Float[Tensor, " q"]:
        """Return the expected F(b) - F(a), by the derivative at the midpoint."""
        return ((b - a) * self.gradient((a + b) / 2)).sum(1)


def explained_variance(
    prior: SlopePrior, rows: SlopeRows, x: Float[Tensor, " d"], num_clients: int
) -> float:
    """Return by how much rows reduce the trace of the covariance of grad F(x), whatever their
    slopes, in units of the prior variance of one component of a client's gradient.
    """
    factor = _factorize(geometry(rows, rows, x).covariance(prior, num_clients))
    known = _gradient_covariance(prior, rows, x)
    return float(torch.linalg.solve_triangular(factor, known, upper=False).square().sum())


def condition(
    prior: SlopePrior,
    rows: SlopeRows,
    center: Float[Tensor, " d"],
    num_clients: int,
    *,
    shape: Geometry | None = None,
) -> SlopePosterior:
    """Return the surrogate conditioned on the rows; `shape` is their geometry, if it is at hand."""
    shape = shape or geometry(rows, rows, center)
    factor = _factorize(shape.covariance(prior, num_clients))
    weights = torch.cholesky_solve(rows.slope.unsqueeze(1), factor).squeeze(1)
    return SlopePosterior(prior, rows, center, num_clients, factor, weights)


def fit(
    prior: SlopePrior,
    rows: SlopeRows,
    shape: Geometry,
    num_clients: int,
    grids: Sequence[tuple[str, Sequence[float]]],
) -> SlopePrior:
    """Return the prior with each hyper-parameter at the best of its grid and its own value."""
    best, height = prior, log_evidence(prior, rows, shape, num_clients)
    for name, grid in grids:
        for value in grid:
            trial = replace(best, **{name: value})  # type: ignore[arg-type]
            evidence = log_evidence(trial, rows, shape, num_clients)
            if evidence > height:
                best, height = trial, evidence
    return best


def log_evidence(prior: SlopePrior, rows: SlopeRows, shape: Geometry, num_clients: int) -> float:
    """Return the log marginal likelihood of the slopes up to a constant."""
    covariance = shape.covariance(prior, num_clients)
    covariance.diagonal().add_(_jitter(covariance))
    factor, info = torch.linalg.cholesky_ex(covariance)
    if info:
        return -math.inf
    whitened = torch.linalg.solve_triangular(factor, rows.slope.unsqueeze(1), upper=False)
    amplitude = float(whitened.square().mean())
    if amplitude <= 0:
        return -math.inf
    return -0.5 * len(rows) * math.log(amplitude) - float(factor.diagonal().log().sum())


def _factorize(covariance: Float[Tensor, "r r"]) -> Float[Tensor, "r r"]:
    return factorize(covariance, _jitter(covariance))


def _jitter(covariance: Float[Tensor, "r r"]) -> float:
    """Return the jitter, less than in proportion where a trend inflates the diagonal."""
    size = covariance.diagonal().mean()
    return float(JITTER * torch.minimum(size, size.sqrt()))


def _gradient_covariance(
    prior: SlopePrior, rows: SlopeRows, x: Float[Tensor, " d"]
) -> Float[Tensor, "r d"]:
    """Return cov(row, grad F(x)) under the prior; the trend about x has no gradient there."""
    offset = x - rows.midpoint
    phi = radial(prior.kernel, offset.square().sum(1, keepdim=True), prior.lengthscale)
    along = (rows.direction * offset).sum(1, keepdim=True)
    shape = (phi.first * rows.direction + 2 * phi.second * along * offset) / _origin(prior)
    return shape / (1 + prior.rho)


def _origin(prior: SlopePrior) -> Tensor:
    return radial(prior.kernel, torch.zeros((), dtype=torch.float64), prior.lengthscale).first
