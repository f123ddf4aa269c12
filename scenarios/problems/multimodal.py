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
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require, require_nonnegative
from fedzo.objectives.problem import Report
from fedzo.parts import composed, part
from fedzo.protocol.questions.private import ClippedConfig
from fedzo.protocol.questions.training_config import FirstOrderConfig
from fedzo.randomness import stream
from scenarios.problems.closed_form import (
    ClosedFormScenario,
    FormulaConfig,
    StackedCohort,
    dirichlet_shares,
)
from scenarios.problems.scenario import Suggestions

FunctionName = Literal["ackley", "levy"]


@composed
class MultimodalConfig:
    """Settings: the function, those of a formula, and the noise of every query."""

    function: FunctionName = "ackley"
    formula: FormulaConfig = part(FormulaConfig, heterogeneity=0.5)
    noise_std: float = 0.0

    own_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.formula.dim >= 2, "dim", self.formula.dim, "at least 2")
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


FUNCTIONS: dict[FunctionName, Callable[[Tensor], Tensor]] = {"ackley": ackley, "levy": levy}


def shifted(
    function: FunctionName, z: Float[Tensor, "n q d"], shifts: Float[Tensor, "n 1 d"]
) -> Float[Tensor, "n q"]:
    """Return every client's f_i: one function, shifted by a row each."""
    return FUNCTIONS[function](z - shifts)


def mean_of(everyone: StackedCohort, x: Float[Tensor, " d"]) -> Report:
    """Return F as the mean over all clients, which the scenario can compute."""
    return Report(float(everyone.value(x.expand(everyone.num_clients, 1, -1)).mean()))


class MultimodalScenario(ClosedFormScenario):
    """The scenario `multimodal`."""

    suggested: ClassVar[Suggestions] = {
        FirstOrderConfig: {"strategy.local_lr": 0.1},
        ClippedConfig: {"strategy.unit": "client"},
    }

    def __init__(self, config: MultimodalConfig, *, num_clients: int, seed: int) -> None:
        shares = dirichlet_shares(
            num_clients, config.formula.dim, generator=stream(seed, "multimodal", "shifts")
        )
        shifts = config.formula.heterogeneity * (shares - 1 / num_clients)
        everyone = StackedCohort(partial(shifted, config.function), (shifts,))
        super().__init__(
            everyone,
            partial(mean_of, everyone),
            name="multimodal",
            seed=seed,
            noise_std=config.noise_std,
        )
