"""Federated quadratics with a dial for heterogeneity.

    f_i(x) = [ sum_j c_j (1 + C (a_ij - 1/N)) z_j^2 + c_j (1 + C (b_ij - 1/N)) z_j  + 1 ] / (10 d),
    z = 20 x - 10,  x in [0, 1]^d,  (a_1j..a_Nj), (b_1j..b_Nj) ~ Dirichlet(1/N, ..., 1/N)
    F(x) = (1/N) sum_i f_i(x) = [ sum_j c_j (z_j^2 + z_j) + 1 ] / (10 d)   for every C
    F* = -1/40 + 1/(10 d),  c_j log-uniform over a factor of `condition`, with mean 1

Shu, Lin, Dai & Low, "Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
Gradients", arXiv 2308.04077, section 6.1 and appendix. F and F* are known in closed form, so
reporting costs no query. At C = 50 most f_i are non-convex. x_0 is uniform in the box. Differs from
the paper: the condition number, which is 1 there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import check_types, require, require_nonnegative
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.problem import Problem, Report
from fedzo.randomness import stream
from fedzo.used_with import UsedWith
from scenarios.problems.scenario import JUDGED_HERE, Suggestions, mean_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticConfig:
    """Settings: dim is d, heterogeneity is C, noise_std the observation noise of every query.

    condition: the condition number of F, 1 for the paper's isotropic F.
    """

    dim: int = 300
    heterogeneity: float = 5.0
    condition: float = 1.0
    noise_std: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "strategy.min_judges": JUDGED_HERE,
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(self.dim >= 1, "dim", self.dim, "at least 1")
        require(
            0 <= self.heterogeneity < math.inf,
            "heterogeneity",
            self.heterogeneity,
            "0 or more, and finite",
        )
        condition = self.condition
        require(1 <= condition < math.inf, "condition", condition, "at least 1 and finite")
        require_nonnegative("noise_std", self.noise_std)


@dataclass(frozen=True, slots=True)
class QuadraticCohort:
    """The objectives of n clients: coefficients of z^2 and z, each [n, d]."""

    square: Float[Tensor, "n d"]
    linear: Float[Tensor, "n d"]
    failures: dict[int, str] = field(default_factory=dict)
    lower: float = 0.0
    upper: float = 1.0

    @property
    def num_clients(self) -> int:
        return len(self.square)

    @property
    def dim(self) -> int:
        return self.square.shape[1]

    def value(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]:
        z = (20 * x).sub_(10)
        slope = (self.square.unsqueeze(1) * z).add_(self.linear.unsqueeze(1))
        total = (slope * z).sum(-1)
        return (total + 1) / (10 * self.dim)


@dataclass(frozen=True, slots=True)
class QuadraticProblem:
    """The one problem: F in closed form, with the coefficients c of its coordinates."""

    initial_x: Float[Tensor, " d"]
    curvature: Float[Tensor, " d"]
    lower: float = 0.0
    upper: float = 1.0
    index: int = 0
    asks_clients: bool = False

    @property
    def optimum(self) -> float:
        return -1 / 40 + 1 / (10 * len(self.initial_x))

    def report(self, x: Float[Tensor, " d"], values: Float[Tensor, " n"] | None) -> Report:
        z = 20 * x - 10
        value = float(((self.curvature * (z * z + z)).sum() + 1) / (10 * len(x)))
        return Report(value, {"gap": value - self.optimum})


class QuadraticScenario:
    """The scenario `quadratic`."""

    num_problems = 1
    summarize = staticmethod(mean_metrics)
    draw = None
    black_box = False
    default_clients: ClassVar[int] = 5
    default_rounds: ClassVar[int] = 50
    suggested: ClassVar[Suggestions] = {
        "first_order": {"strategy.local_lr": 0.1},
        "anchor": {"strategy.local_lr": 0.1},
        "gradient": {"strategy.server_lr": 0.03},
        "gradient_difference": {"strategy.unit": "client"},
    }

    def __init__(self, config: QuadraticConfig, *, num_clients: int, seed: int) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        self._initial_x = torch.from_numpy(stream(seed, "quadratic", "x0").random(config.dim))
        self._curvature = _curvature(config, seed)
        shares = (
            dirichlet_shares(num_clients, config.dim, generator=stream(seed, "quadratic", name))
            for name in ("square", "linear")
        )
        self._square, self._linear = (
            self._curvature * (1 + config.heterogeneity * (share - 1 / num_clients))
            for share in shares
        )

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        rows = slice(None) if len(client_ids) == self.num_clients else list(client_ids)
        return QuadraticCohort(self._square[rows], self._linear[rows])

    def problem(self, index: int) -> Problem:
        return QuadraticProblem(self._initial_x, self._curvature)


def dirichlet_shares(
    num_clients: int, dim: int, *, generator: np.random.Generator
) -> Float[Tensor, "n d"]:
    """Return Dirichlet(1/N, ..., 1/N) shares, which sum to 1 over clients in every coordinate."""
    shares = generator.dirichlet([1 / num_clients] * num_clients, size=dim)
    return torch.from_numpy(shares).T.contiguous()


def _curvature(config: QuadraticConfig, seed: int) -> Float[Tensor, " d"]:
    """Return coefficients that spread over a factor of `condition` and have mean 1."""
    if config.condition == 1:
        return torch.ones(config.dim, dtype=torch.float64)
    exponents = torch.from_numpy(stream(seed, "quadratic", "curvature").random(config.dim))
    spread = config.condition**exponents
    return spread / spread.mean()
