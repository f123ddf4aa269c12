"""Federated Ackley and Levy functions: many local minima, clients that disagree on where.

    z = 20 x - 10 - s_i,  x in [0, 1]^d,  s_ij = C (a_ij - 1/N),  (a_1j..) ~ Dirichlet(1/N, ...)
    ackley:  f_i = 20 - 20 exp(-0.2 sqrt(mean_j z_j^2)) + e - exp(mean_j cos 2 pi z_j)
    levy:    f_i = [ sin^2 pi w_1 + sum_{j<d} (w_j - 1)^2 (1 + 10 sin^2(pi w_j + 1))
                     + (w_d - 1)^2 (1 + sin^2 2 pi w_d) ] / d,   w = 1 + (z - 1) / 4
    F = (1/N) sum_i f_i

Ackley, "A Connectionist Machine for Genetic Hillclimbing", 1987; Levy & Montalvo, "The Tunneling
Algorithm for the Global Minimization of Functions", SIAM J. Sci. Stat. Comput. 1985. Shu et al.,
arXiv 2308.04077, test federated forms of both whose formulas they do not print: the shifts s_i,
which sum to zero over clients, and the mean over coordinates in Levy, are fedzo's. F is known by
evaluating the clients outside the count, so reporting costs no query. x_0 is uniform in the box.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import check_types, require, require_nonnegative
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.problem import Problem, Report
from fedzo.randomness import stream
from fedzo.used_with import UsedWith
from scenarios.problems.quadratic import dirichlet_shares
from scenarios.problems.scenario import JUDGED_HERE, Suggestions, mean_metrics

FunctionName = Literal["ackley", "levy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MultimodalConfig:
    """Settings: the function, dim d, heterogeneity C, and the noise of every query."""

    function: FunctionName = "ackley"
    dim: int = 300
    heterogeneity: float = 0.5
    noise_std: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "strategy.min_judges": JUDGED_HERE,
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(self.dim >= 2, "dim", self.dim, "at least 2")
        require(
            0 <= self.heterogeneity < math.inf,
            "heterogeneity",
            self.heterogeneity,
            "0 or more, and finite",
        )
        require_nonnegative("noise_std", self.noise_std)


def ackley(z: Float[Tensor, "*q d"]) -> Float[Tensor, "*q"]:
    """Return Ackley's function."""
    far = 20 - 20 * torch.exp(-0.2 * z.square().mean(-1).sqrt())
    return far + math.e - torch.exp(torch.cos(2 * math.pi * z).mean(-1))


def levy(z: Float[Tensor, "*q d"]) -> Float[Tensor, "*q"]:
    """Return Levy's function divided by the dimension."""
    w = 1 + (z - 1) / 4
    head, last = w[..., :-1], w[..., -1]
    first = torch.sin(math.pi * w[..., 0]).square()
    middle = ((head - 1).square() * (1 + 10 * torch.sin(math.pi * head + 1).square())).sum(-1)
    end = (last - 1).square() * (1 + torch.sin(2 * math.pi * last).square())
    return (first + middle + end) / z.shape[-1]


FUNCTIONS = {"ackley": ackley, "levy": levy}


@dataclass(frozen=True, slots=True)
class MultimodalCohort:
    """The objectives of n clients: one function, shifted by a row each."""

    function: FunctionName
    shifts: Float[Tensor, "n d"]
    failures: dict[int, str] = field(default_factory=dict)
    lower: float = 0.0
    upper: float = 1.0

    @property
    def num_clients(self) -> int:
        return len(self.shifts)

    @property
    def dim(self) -> int:
        return self.shifts.shape[1]

    def value(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]:
        return FUNCTIONS[self.function](20 * x - 10 - self.shifts.unsqueeze(1))


@dataclass(frozen=True, slots=True)
class MultimodalProblem:
    """The one problem: F as the mean over all clients, which the scenario can compute."""

    initial_x: Float[Tensor, " d"]
    everyone: MultimodalCohort
    lower: float = 0.0
    upper: float = 1.0
    index: int = 0
    asks_clients: bool = False

    def report(self, x: Float[Tensor, " d"], values: Float[Tensor, " n"] | None) -> Report:
        points = x.expand(self.everyone.num_clients, 1, -1)
        return Report(float(self.everyone.value(points).mean()))


class MultimodalScenario:
    """The scenario `multimodal`."""

    num_problems = 1
    summarize = staticmethod(mean_metrics)
    draw = None
    black_box = False
    default_clients: ClassVar[int] = 5
    default_rounds: ClassVar[int] = 50
    suggested: ClassVar[Suggestions] = {
        "first_order": {"strategy.local_lr": 0.1},
        "gradient_difference": {"strategy.unit": "client"},
    }

    def __init__(self, config: MultimodalConfig, *, num_clients: int, seed: int) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        self._function: FunctionName = config.function
        self._initial_x = torch.from_numpy(stream(seed, "multimodal", "x0").random(config.dim))
        shares = dirichlet_shares(
            num_clients, config.dim, generator=stream(seed, "multimodal", "shifts")
        )
        self._shifts = config.heterogeneity * (shares - 1 / num_clients)

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        return MultimodalCohort(self._function, self._shifts[list(client_ids)])

    def problem(self, index: int) -> Problem:
        everyone = MultimodalCohort(self._function, self._shifts)
        return MultimodalProblem(self._initial_x, everyone)
