"""A black box inside a differentiable model: autograd through zeroth-order estimates.

    loss_i = f(h_i);   d loss_i / d h_i  ~  scale / m sum_j c_ij u_ij  (fedzo.estimation.schemes)

`zo_gradient` gives the value of a black box at every row of h and, when autograd comes back, the
estimate of its gradient there instead of the gradient: parameters that h depends on are trained by
the chain rule, the black box is only queried. Zhang, Yao, Jia, Yi, Hong, Chang & Liu, "How to
Robustify Black-Box ML Models? A Zeroth-Order Optimization Perspective" (ZO-AE-DS), ICLR 2022,
equation 6. Shapes: h [b, k], losses [b]. Cost: the scheme's queries a row (coordinate: 2 k) and one
for the loss itself, where the scheme does not ask there.

Differs from the paper's code: the coordinate-wise estimate is a sum over coordinates, not their
mean.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import check_types, require
from fedzo.estimation.directions import DirectionKind, sample_cohort_directions
from fedzo.estimation.schemes import (
    BASE,
    SCHEMES,
    Differences,
    MemorylessName,
    combine,
    direction_reach,
    estimator_scale,
    gradient_coefficients,
    require_resolved,
)

BlackBox = Callable[[Float[Tensor, "b q k"]], Float[Tensor, "b q"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoGradientConfig:
    """How gradients are estimated; num_directions is not used by `coordinate`, which takes k."""

    estimator: MemorylessName = "coordinate"
    directions: DirectionKind = "sphere"
    num_directions: int = 20
    mu: float = 0.005

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < math.inf, "mu", self.mu, "positive and finite")

    def num_queries(self, k: int) -> int:
        """Return the queries that a row of length k costs."""
        scheme = SCHEMES[self.estimator]
        asked = scheme.offsets(k if scheme.axes else self.num_directions)
        return len(asked) + (BASE not in asked)


def zo_gradient(
    function: BlackBox,
    h: Float[Tensor, "b k"],
    config: ZoGradientConfig,
    *,
    generator: np.random.Generator,
) -> Float[Tensor, " b"]:
    """Return the black box's value at every row of h, differentiable by estimates.

    `function` gets q points for each row, in the rows' order, and returns their values.
    """
    losses: Tensor = _ZoGradient.apply(h, function, config, generator)  # type: ignore[no-untyped-call]
    return losses


class _ZoGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        function: BlackBox,
        config: ZoGradientConfig,
        generator: np.random.Generator,
    ) -> Tensor:
        losses, gradient = value_and_estimate(function, h, config, generator=generator)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        [gradient] = ctx.saved_tensors
        return outputs[0].unsqueeze(1) * gradient, None, None, None


def value_and_estimate(
    function: BlackBox,
    h: Float[Tensor, "b k"],
    config: ZoGradientConfig,
    *,
    generator: np.random.Generator,
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b k"]]:
    """Return values and estimated gradients of a black box at every row."""
    rows, k = h.shape
    differences = Differences.named(config.estimator, config.mu)
    complete = differences.scheme.axes
    if complete:
        u = torch.eye(k, dtype=h.dtype, device=h.device).expand(rows, k, k)
    else:
        generators = generator.spawn(rows)
        u = sample_cohort_directions(
            config.directions, config.num_directions, k, generators=generators, dtype=h.dtype
        )
    scale = estimator_scale(differences.scheme, config.directions, k)
    require_resolved(
        h.detach(), config.mu, 1.0 if complete else direction_reach(config.directions, k)
    )
    points = differences.points(h, u)
    offsets = list(differences.scheme.offsets(u.shape[1]))
    has_base = BASE in offsets
    values = function(points if has_base else torch.cat([h.unsqueeze(1), points], dim=1))
    slopes = differences.slopes(values if has_base else values[:, 1:], h.dtype)
    coefficients = gradient_coefficients(slopes, scale, complete=complete)
    at_h = values[:, offsets.index(BASE) if has_base else 0]
    return at_h, combine(coefficients, u)
