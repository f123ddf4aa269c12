"""Starter: clients take zeroth-order steps, and the server walks along their mean with momentum.

m <- beta m + mean_i (x_i - x);   x <- x + m
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedzo.config import require
from fedzo.parts import composed, part
from fedzo.protocol.questions.training import local_steps
from fedzo.protocol.questions.training_config import ZerothOrderConfig
from strategies.core.asking import ask
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import RobustConfig, aggregate
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.step_config import LocalConfig


@composed
class StarterConfig:
    """beta: share of the last step that is taken again, as in --set strategy.beta=0.9."""

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    local: LocalConfig = part(LocalConfig, local_steps=5)
    beta: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.beta < 1, "beta", self.beta, "0 or more, and below 1")


@dataclass(frozen=True)
class StarterState:
    x: Tensor
    momentum: Tensor


class Starter(ConfiguredStrategy[StarterConfig, ZerothOrderConfig, StarterState]):
    """Momentum along the mean of the clients' steps."""

    client_config = ZerothOrderConfig

    def init(self, x: Tensor, num_clients: int) -> StarterState:
        return StarterState(x, torch.zeros_like(x))

    def round(self, state: StarterState, plan: RoundPlan) -> Round[StarterState]:
        local = self._config.local
        steps = local_steps(
            self._client, x=state.x, local_steps=local.local_steps, local_lr=local.local_lr
        )
        heard = yield from ask(steps, plan.cohort)
        update = aggregate(heard.said.update, self.robust, plan)
        momentum = self._config.beta * state.momentum + update
        return StarterState(state.x + momentum, momentum)
