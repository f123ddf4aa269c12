"""Problems by formula: a function of z in a box, with coefficients that differ between clients.

    f_i(x) = formula(z; coefficients of client i),  z = 20 x - 10,  x in [0, 1]^d

A formula takes z [n, q, d] and tensors [n, 1, d] and returns [n, q]: one tensor program for a whole
cohort. Shares of a Dirichlet(1/N, ..., 1/N) law sum to 1 over clients in every coordinate, so what
is added to the clients by `C (share - 1/N)` cancels in their mean. x_0 is uniform in the box.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import check_types, require
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.problem import Problem, Report
from fedzo.randomness import stream
from fedzo.used_with import UsedWith
from scenarios.problems.one_problem import KnownProblem, OneProblem
from scenarios.problems.scenario import JUDGED_HERE, QUERIED

Formula = Callable[..., Float[Tensor, "n q"]]
"""z and each client's coefficients -> values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormulaConfig:
    """Settings of problems by formula: dim is d, heterogeneity is C."""

    dim: int = 300
    heterogeneity: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "strategy.min_judges": JUDGED_HERE,
        "strategy.judges": JUDGED_HERE,
        "scenario.noise_std": QUERIED,
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(self.dim >= 1, "dim", self.dim, "at least 1")
        size = self.heterogeneity
        require(0 <= size < math.inf, "heterogeneity", size, "0 or more, and finite")


@dataclass(frozen=True, slots=True)
class StackedCohort:
    """The objectives of n clients: one formula, with a row of every coefficient each."""

    formula: Formula
    coefficients: tuple[Float[Tensor, "n d"], ...]
    failures: dict[int, str] = field(default_factory=dict)
    lower: float = 0.0
    upper: float = 1.0

    @property
    def num_clients(self) -> int:
        return len(self.coefficients[0])

    @property
    def dim(self) -> int:
        return self.coefficients[0].shape[1]

    def value(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]:
        z = (20 * x).sub_(10)
        return self.formula(z, *(each.unsqueeze(1) for each in self.coefficients))

    def of(self, client_ids: Sequence[int]) -> "StackedCohort":
        """Return the objectives of some of the clients."""
        if len(client_ids) == self.num_clients:
            return replace(self, failures={})
        rows = list(client_ids)
        picked = tuple(each[rows] for each in self.coefficients)
        return replace(self, coefficients=picked, failures={})


class ClosedFormScenario(OneProblem):
    """A scenario whose F is known by its formula, `judge`."""

    def __init__(
        self,
        everyone: StackedCohort,
        judge: Callable[[Float[Tensor, " d"]], Report],
        *,
        name: str,
        seed: int,
        noise_std: float,
    ) -> None:
        self.num_clients = everyone.num_clients
        self.noise_std = noise_std
        self._everyone, self._judge = everyone, judge
        self._initial_x = torch.from_numpy(stream(seed, name, "x0").random(everyone.dim))

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        return self._everyone.of(client_ids)

    def problem(self, index: int) -> Problem:
        return KnownProblem(self._initial_x, self._judge, lower=0.0, upper=1.0)


def dirichlet_shares(
    num_clients: int, dim: int, *, generator: np.random.Generator
) -> Float[Tensor, "n d"]:
    """Return Dirichlet(1/N, ..., 1/N) shares, which sum to 1 over clients in every coordinate."""
    shares = generator.dirichlet([1 / num_clients] * num_clients, size=dim)
    return torch.from_numpy(shares).T.contiguous()
