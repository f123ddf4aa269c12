"""Federated quadratics with a dial for heterogeneity.

    f_i(x) = [ sum_j c_j (1 + C (a_ij - 1/N)) z_j^2 + c_j (1 + C (b_ij - 1/N)) z_j  + 1 ] / (10 d),
    z = 20 x - 10,  x in [0, 1]^d,  (a_1j..a_Nj), (b_1j..b_Nj) ~ Dirichlet(1/N, ..., 1/N)
    F(x) = (1/N) sum_i f_i(x) = [ sum_j c_j (z_j^2 + z_j) + 1 ] / (10 d)   for every C
    F* = -1/40 + 1/(10 d),  c_j log-uniform over a factor of `condition`, with mean 1

Shu, Lin, Dai & Low, "Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
Gradients", arXiv 2308.04077, section 6.1 and appendix. F and F* are known in closed form, so
reporting costs no query. At C = 50 most f_i are non-convex. x_0 is uniform in the box. Differs from
the paper: `condition`, which is 1 there.
"""

import math
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require, require_nonnegative
from fedzo.objectives.problem import Report
from fedzo.parts import composed, part
from fedzo.protocol.questions.anchored import AnchorConfig
from fedzo.protocol.questions.private import ClippedConfig
from fedzo.protocol.questions.training_config import FirstOrderConfig, GradientConfig
from fedzo.randomness import stream
from scenarios.problems.closed_form import (
    ClosedFormScenario,
    FormulaConfig,
    StackedCohort,
    dirichlet_shares,
)
from scenarios.problems.scenario import Suggestions


@composed
class QuadraticConfig:
    """Settings: those of a formula, and noise_std, the observation noise of every query.

    condition: the factor over which F's curvatures are drawn, 1 for the paper's isotropic F. With
    few numbers F's condition number is below it.
    """

    formula: FormulaConfig = part(FormulaConfig, heterogeneity=5.0)
    condition: float = 1.0
    noise_std: float = 0.0

    own_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        condition = self.condition
        require(1 <= condition < math.inf, "condition", condition, "at least 1 and finite")
        require_nonnegative("noise_std", self.noise_std)


def quadratic(
    z: Float[Tensor, "n q d"], square: Float[Tensor, "n 1 d"], linear: Float[Tensor, "n 1 d"]
) -> Float[Tensor, "n q"]:
    """Return every client's f_i, given its coefficients of z^2 and z."""
    slope = (square * z).add_(linear)
    total = (slope * z).sum(-1)
    return (total + 1) / (10 * z.shape[-1])


def judged(curvature: Float[Tensor, " d"], x: Float[Tensor, " d"]) -> Report:
    """Return F, given the coefficients c of its coordinates, and how far it is above F*."""
    z = 20 * x - 10
    value = float(((curvature * (z * z + z)).sum() + 1) / (10 * len(x)))
    return Report(value, {"gap": value - (-1 / 40 + 1 / (10 * len(x)))})


class QuadraticScenario(ClosedFormScenario):
    """The scenario `quadratic`."""

    suggested: ClassVar[Suggestions] = {
        FirstOrderConfig: {"strategy.local_lr": 0.1},
        AnchorConfig: {"strategy.local_lr": 0.1},
        GradientConfig: {"strategy.server_lr": 0.03},
        ClippedConfig: {"strategy.unit": "client"},
    }

    def __init__(self, config: QuadraticConfig, *, num_clients: int, seed: int) -> None:
        curvature = _curvature(config, seed)
        shares = (
            dirichlet_shares(
                num_clients, config.formula.dim, generator=stream(seed, "quadratic", name)
            )
            for name in ("square", "linear")
        )
        coefficients = tuple(
            curvature * (1 + config.formula.heterogeneity * (share - 1 / num_clients))
            for share in shares
        )
        super().__init__(
            StackedCohort(quadratic, coefficients),
            partial(judged, curvature),
            name="quadratic",
            seed=seed,
            noise_std=config.noise_std,
        )


def _curvature(config: QuadraticConfig, seed: int) -> Float[Tensor, " d"]:
    """Return coefficients that spread over a factor of `condition` and have mean 1."""
    if config.condition == 1:
        return torch.ones(config.formula.dim, dtype=torch.float64)
    exponents = torch.from_numpy(stream(seed, "quadratic", "curvature").random(config.formula.dim))
    spread = config.condition**exponents
    return spread / spread.mean()
