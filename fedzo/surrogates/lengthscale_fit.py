"""Lengthscales by the marginal likelihood, with gpytorch, all clients in one batch.

Apart from fedzo.surrogates.gp, which has the shapes, because gpytorch takes a while to import and
only a fit needs it. Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, eq. 5.8;
differs from the published code of FZooS, which fits a client at a time with scikit-learn.
"""

import gpytorch
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.surrogates.gp import Observations
from fedzo.surrogates.kernels import KernelName

_PADDING_NOISE = 1e6


def fit_lengthscale(
    kernel: KernelName,
    start: Float[Tensor, " n"],
    data: Observations,
    noise_variance: float,
    *,
    steps: int = 30,
    lr: float = 0.1,
) -> Float[Tensor, " n"]:
    """Return the lengthscales, and nothing else, of the highest marginal likelihood seen.

    Adam on gpytorch's batch of exact Gaussian processes, one a client, with zero mean and a fitted
    outputscale, which cancels in grad mu. noise_variance is that of the values.
    """
    noise = torch.full_like(data.values, _PADDING_NOISE).masked_fill(data.known, noise_variance)
    values = data.values * data.known
    with gpytorch.settings.min_fixed_noise(double_value=noise_variance):
        likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise)
    model = _Batch(kernel, data.points, values, likelihood)
    model.kernel.base_kernel.lengthscale = start.reshape(-1, 1, 1)
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    best, height = start, torch.full_like(start, -torch.inf)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        with gpytorch.settings.fast_computations(False, False, False):  # those draw random numbers
            evidence = objective(model(data.points), values)
        found = model.kernel.base_kernel.lengthscale.detach().reshape(-1)
        higher = evidence.detach() > height
        best = torch.where(higher, found, best)
        height = torch.where(higher, evidence.detach(), height)
        (-evidence.sum()).backward()
        optimizer.step()
    return best


class _Batch(gpytorch.models.ExactGP):  # type: ignore[misc]
    """One Gaussian process a client in gpytorch's form."""

    def __init__(
        self,
        kernel: KernelName,
        points: Float[Tensor, "n m d"],
        values: Float[Tensor, "n m"],
        likelihood: gpytorch.likelihoods.Likelihood,
    ) -> None:
        super().__init__(points, values, likelihood)
        batch = points.shape[:1]
        self.mean = gpytorch.means.ZeroMean(batch_shape=batch)
        self.kernel = gpytorch.kernels.ScaleKernel(
            gpytorch_kernel(kernel, batch), batch_shape=batch
        ).to(points)

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))


def gpytorch_kernel(kernel: KernelName, batch: torch.Size) -> gpytorch.kernels.Kernel:
    """Return gpytorch's form of a kernel, without outputscale."""
    if kernel == "squared_exponential":
        return gpytorch.kernels.RBFKernel(batch_shape=batch)
    if kernel == "matern52":
        return gpytorch.kernels.MaternKernel(nu=2.5, batch_shape=batch)
    quadratic = gpytorch.kernels.RQKernel(batch_shape=batch)
    quadratic.alpha = 1.0
    quadratic.raw_alpha.requires_grad_(False)
    return quadratic
