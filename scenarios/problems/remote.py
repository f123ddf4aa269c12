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
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.problem import OpenProblem, Problem
from scenarios.problems.one_problem import OneProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteConfig:
    """Settings: dim is the number of variables, [lower, upper] the box of each.

    start: where in the box the first x is, 0 at the lower bounds, 1 at the upper. noise_std: noise
    that the nodes add to every value, for trials.
    """

    dim: int = 10
    lower: float = -1.0
    upper: float = 1.0
    start: float = 0.5
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        require(self.dim >= 1, "dim", self.dim, "at least 1")
        require_nonnegative("noise_std", self.noise_std)
        if self.lower >= self.upper:
            raise ConfigError(f"lower={self.lower} must be below upper={self.upper}")
        require(0 <= self.start <= 1, "start", self.start, "from 0 to 1")


class RemoteScenario(OneProblem):
    """The scenario `remote`."""

    default_clients: ClassVar[int] = 2
    default_rounds: ClassVar[int] = 10

    def __init__(self, config: RemoteConfig, *, num_clients: int, seed: int) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        self._config = config

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        raise ConfigError(
            "scenario remote has its objectives on nodes: start each SuperNode with --node-config"
            " 'objective=\"file.py:function\" ...', or simulate with scenario custom"
        )

    def problem(self, index: int) -> Problem:
        config = self._config
        x = config.lower + config.start * (config.upper - config.lower)
        start = torch.full((config.dim,), x, dtype=torch.float64)
        noisy = config.noise_std > 0
        return OpenProblem(initial_x=start, lower=config.lower, upper=config.upper, noisy=noisy)
