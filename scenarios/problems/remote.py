"""Objectives that only the clients' nodes know: the scenario of a deployment.

The server knows the number of variables and the box, nothing else; every node names its own
objective (`objective` in its --node-config, see scenarios.deployed.flower_app). F is the mean of
the clients' values, asked and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from fedzo.config import check_types, require, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.number import read_number
from fedzo.objectives.box import Bound, check_box
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.problem import OpenProblem, Problem
from fedzo.used_with import UsedWith, one_of
from scenarios.problems.one_problem import OneProblem
from scenarios.problems.own_metrics import OwnMetrics, load_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteConfig:
    """Settings: dim is the number of variables, [lower, upper] the box of each.

    bounds: where the variables' boxes differ, lower:upper of each with commas between, such as
    20:90,0:1. start: where in the box the first x is, 0 at the lower bounds, 1 at the upper.
    noise_std: noise that the nodes add to every value, for trials. metrics: a function of x [d],
    as for the scenario custom; it runs beside the server.
    """

    USED_WITH: ClassVar[UsedWith] = {
        "lower": one_of("bounds", ""),
        "upper": one_of("bounds", ""),
    }

    dim: int = 10
    lower: float = -1.0
    upper: float = 1.0
    bounds: str = ""
    start: float = 0.5
    noise_std: float = 0.0
    metrics: str = ""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.dim >= 1, "dim", self.dim, "at least 1")
        require_nonnegative("noise_std", self.noise_std)
        if self.lower >= self.upper:
            raise ConfigError(f"lower={self.lower} must be below upper={self.upper}")
        require(0 <= self.start <= 1, "start", self.start, "from 0 to 1")
        self.box()

    def box(self) -> tuple[Bound, Bound]:
        """Return the bounds of the variables; raises ConfigError for `bounds` that are none."""
        if not self.bounds:
            return self.lower, self.upper
        each = [text.split(":") for text in self.bounds.split(",")]
        if len(each) != self.dim or any(len(ends) != 2 for ends in each):
            raise ConfigError(
                f"bounds={self.bounds!r} must be lower:upper for each of dim={self.dim} variables,"
                " with commas between, such as 20:90,0:1"
            )
        low, high = ([read_number(ends[i], name="bounds") for ends in each] for i in (0, 1))
        return check_box(self.dim, low, high)


class RemoteScenario(OneProblem):
    """The scenario `remote`."""

    default_clients: ClassVar[int] = 2
    default_rounds: ClassVar[int] = 10

    def __init__(self, config: RemoteConfig, *, num_clients: int, seed: int) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        self._config = config
        self._metrics = OwnMetrics(load_metrics(config.metrics)) if config.metrics else None

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        raise ConfigError(
            "scenario remote has its objectives on nodes: start each SuperNode with --node-config"
            " 'objective=\"file.py:function\" ...', or simulate with scenario custom"
        )

    def problem(self, index: int) -> Problem:
        config = self._config
        low, high = config.box()
        ends = [torch.as_tensor(end, dtype=torch.float64).expand(config.dim) for end in (low, high)]
        start = ends[0] + config.start * (ends[1] - ends[0])
        return OpenProblem(
            initial_x=start,
            lower=low,
            upper=high,
            noisy=config.noise_std > 0,
            measure=None if self._metrics is None else self._metrics.at,
        )
