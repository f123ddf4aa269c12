"""The derived Gaussian process: what queries of f say of grad f.

    J(x)[r] = d k(x, x_r) / dx = 2 phi'(|x - x_r|^2) (x - x_r)                      [m, d]
    grad mu(x)         = J(x)^T (K + s^2 I)^-1 y                                    (d)
    grad covariance(x) = -2 phi'(0) I - J(x)^T (K + s^2 I)^-1 J(x)                  (d x d)

Shu, Dai, Sng, Verma, Jaillet & Low, "Zeroth-Order Optimization with Trajectory-Informed Derivative
Estimation", ICLR 2023, eq. 4-6; Shu et al., arXiv 2308.04077, eq. 5-6. Batched over n clients, each
with its own points [n, m, d], values [n, m] and lengthscale [n] (fedzo.surrogates.lengthscale_fit).
Cost: m^3 / 3 + m^2 d a client, m d a gradient, m^2 an uncertainty.

Differs from the papers: uncertainty is the trace of the covariance; its spectral norm, which they
name, is the prior's wherever there are fewer points than dimensions, so it cannot rank candidates.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fedzo.surrogates.kernels import (
    KernelName,
    derivatives,
    first_at_zero,
    radial,
    squared_distances,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Points [n, m, d] with values [n, m]; rows outside `known` are padding, not data."""

    points: Float[Tensor, "n m d"]
    values: Float[Tensor, "n m"]
    known: Bool[Tensor, "n m"]


@dataclass(frozen=True, slots=True)
class GradientPosterior:
    """Each client's derived Gaussian process.

    inverse is (K + s^2 I)^-1 with zeros for padding, weights is inverse @ y.
    """

    kernel: KernelName
    lengthscale: Float[Tensor, " n"]
    points: Float[Tensor, "n m d"]
    inverse: Float[Tensor, "n m m"]
    weights: Float[Tensor, "n m"]

    def gradient(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q d"]:
        """Return grad mu at q points of each client."""
        factors = self._factors(x) * self.weights.unsqueeze(1)
        return factors.sum(-1, keepdim=True) * x - factors @ self.points

    def uncertainty(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]:
        """Return the trace of the gradient's covariance at q points of each client."""
        c = self._factors(x)
        center = self.points.mean(1, keepdim=True)
        local, z = self.points - center, x - center
        along = z @ local.mT
        gram = self.inverse * (local @ local.mT)
        carried = c @ self.inverse
        explained = (
            (carried * c).sum(-1) * z.square().sum(-1)
            - 2 * (carried * c * along).sum(-1)
            + ((c @ gram) * c).sum(-1)
        )
        return x.shape[-1] * self._prior().unsqueeze(1) - explained

    def covariance(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d d"]:
        """Return the whole covariance of the gradient at one point of each client."""
        c = self._factors(x.unsqueeze(1)).squeeze(1)
        jacobian = c.unsqueeze(-1) * (x.unsqueeze(1) - self.points)
        identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        prior = self._prior().reshape(-1, 1, 1) * identity
        return prior - jacobian.mT @ self.inverse @ jacobian

    def _factors(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q m"]:
        """Return 2 phi'(|x - x_r|^2)."""
        center = self.points.mean(1, keepdim=True)
        t = squared_distances(x - center, self.points - center)
        return 2 * derivatives(self.kernel, t, self.lengthscale.reshape(-1, 1, 1)).first

    def _prior(self) -> Float[Tensor, " n"]:
        return torch.as_tensor(-2 * first_at_zero(self.kernel, self.lengthscale))


def condition_values(
    kernel: KernelName,
    lengthscale: Float[Tensor, " n"],
    data: Observations,
    noise_variance: float,
) -> GradientPosterior:
    """Return each client's surrogate of unit prior variance, conditioned on its observations."""
    covariance = _covariance(kernel, lengthscale, data.points)
    both = data.known.unsqueeze(-1) & data.known.unsqueeze(-2)
    eye = torch.eye(data.known.shape[1], dtype=covariance.dtype, device=covariance.device)
    covariance = covariance * both + eye * torch.where(data.known, noise_variance, 1.0).unsqueeze(1)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance)) * both
    weights = (inverse @ data.values.unsqueeze(-1)).squeeze(-1)
    return GradientPosterior(kernel, lengthscale, data.points, inverse, weights)


def _covariance(
    kernel: KernelName, lengthscale: Float[Tensor, " n"], points: Float[Tensor, "n m d"]
) -> Float[Tensor, "n m m"]:
    local = points - points.mean(1, keepdim=True)
    t = squared_distances(local, local)
    t.diagonal(dim1=1, dim2=2).zero_()
    return radial(kernel, t, lengthscale.reshape(-1, 1, 1))
