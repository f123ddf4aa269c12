"""Random Fourier features: a surrogate that travels as one vector of weights.

    phi(x) = sqrt(2 / M) cos(V x + b),  rows of V ~ N(0, I / l^2),  b ~ U[0, 2 pi]       [M]
    w = Phi (Phi^T Phi + s^2 I)^-1 y,  Phi = [phi(x_1) .. phi(x_m)]                      [M]
    grad muhat(x) = -sqrt(2 / M) V^T [w * sin(V x + b)]                                  [d]

Rahimi & Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007, algorithm 1, for
the squared exponential kernel; Shu et al., arXiv 2308.04077, eq. 7. All clients and the server
make V and b from the run's seed, so only w is sent: M floats. The error of the kernel falls as
1 / sqrt(M). The appendix of the second paper prints 2 / sqrt(M); its proof uses sqrt(2 / M).
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.randomness import stream
from fedzo.surrogates.factorization import factorize
from fedzo.surrogates.gp import Observations


@dataclass(frozen=True, slots=True)
class RandomFeatures:
    """The features that everybody shares: frequencies V [M, d] and phases b [M]."""

    frequencies: Float[Tensor, "f d"]
    phases: Float[Tensor, " f"]

    def __len__(self) -> int:
        return len(self.phases)

    def features(self, x: Float[Tensor, "*q d"]) -> Float[Tensor, "*q f"]:
        """Return phi(x)."""
        return self._amplitude() * torch.cos(x @ self.frequencies.T + self.phases)

    def gradient(
        self, weights: Float[Tensor, "*q f"], x: Float[Tensor, "*q d"]
    ) -> Float[Tensor, "*q d"]:
        """Return grad muhat of the surrogate with these weights at x."""
        waves = torch.sin(x @ self.frequencies.T + self.phases)
        return -self._amplitude() * (weights * waves) @ self.frequencies

    def weights(self, data: Observations, noise_variance: float) -> Float[Tensor, "n f"]:
        """Return each client's w; a noise_variance of 0 interpolates, to 1e-10 of the prior.

        Not by torch.linalg.lstsq, whose rounding depends on where a matrix lies in memory.
        """
        rows = []
        for points, values, known in zip(data.points, data.values, data.known, strict=True):
            phi = self.features(points[known])
            factor = factorize(phi @ phi.T, max(noise_variance, 1e-10))
            rows.append(torch.cholesky_solve(values[known].unsqueeze(1), factor)[:, 0] @ phi)
        return torch.stack(rows)

    def _amplitude(self) -> float:
        return math.sqrt(2 / len(self))


@functools.lru_cache(maxsize=2)
def make_features(
    num_features: int,
    dim: int,
    lengthscale: float,
    seed: int,
    *,
    device: torch.device | str = "cpu",
) -> RandomFeatures:
    """Draw the features that belong to a seed."""
    generator = stream(seed, "random features", num_features, dim)
    frequencies = generator.standard_normal((num_features, dim)) / lengthscale
    phases = generator.uniform(0, 2 * np.pi, num_features)
    drawn = (torch.from_numpy(table).to(device) for table in (frequencies, phases))
    return RandomFeatures(*drawn)
