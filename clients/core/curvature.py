"""The diagonal of a Hessian by Hutchinson's estimate, as AdaHessian takes it.

    D = z * (H z),   z of independent signs;   E[D] = diag H

Yao et al., "AdaHessian: An Adaptive Second Order Optimizer for Machine Learning", AAAI 2021,
equations 7 to 11. H z is exact, by differentiating g . z once more. In a module's convolutions |D|
is averaged over each kernel, as the paper has it; other parameters keep their own. Shapes: x, D
[n, d]. Cost: two gradients for g and D together.

Differs from the paper: linear layers are not averaged over blocks.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.module_cohort import ModuleCohort
from fedzo.objectives.modules import named_trained
from fedzo.runtime.local import Clients

Kernels = list[tuple[int, int]]
"""Numbers in each parameter of a module, and in each kernel of it, 1 where it has none."""


class Curvature:
    """Gradients of a cohort with what Hutchinson's estimate says of their Hessians."""

    def __init__(self, clients: Clients) -> None:
        self._oracle, self._generators = clients.oracle, clients.streams("curvature")
        self._kernels = kernels_of(clients.cohort)

    def __call__(
        self, x: Float[Tensor, "n d"], *, of: CohortObjective
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Return gradients at x, and D with new signs."""
        rows = [torch.from_numpy(g.integers(2, size=x.shape[1])) for g in self._generators]
        signs = (2 * torch.stack(rows) - 1).to(x)
        gradient, product = self._oracle.gradient_and_product(x, signs, of=of)
        return gradient, averaged((signs * product).abs(), self._kernels)


def kernels_of(cohort: CohortObjective) -> Kernels:
    """Return what is averaged over in a module that all clients have; nothing elsewhere."""
    if not isinstance(cohort, ModuleCohort):
        return []
    shapes = [p.shape for _, p in named_trained(cohort.objectives[0].module)]
    return [(shape.numel(), math.prod(shape[2:])) for shape in shapes]


def averaged(values: Float[Tensor, "n d"], kernels: Kernels) -> Float[Tensor, "n d"]:
    """Return values of which each kernel has its mean everywhere."""
    if not any(size > 1 for _, size in kernels):
        return values
    parts = values.split([count for count, _ in kernels], dim=1)
    means = [
        part.unflatten(1, (-1, size)).mean(2).repeat_interleave(size, dim=1)
        for part, (_, size) in zip(parts, kernels, strict=True)
    ]
    return torch.cat(means, dim=1)
