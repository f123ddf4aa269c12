"""What strategies can be told of steps: of the clients' local ones, and of the server's."""

import math
from dataclasses import dataclass
from typing import ClassVar

from fedzo.config import check_types, require
from fedzo.optimizers import Optimizer, OptimizerName, make_optimizer
from fedzo.used_with import UsedWith, one_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConfig:
    """local_steps, local_lr: what each client does in a round."""

    local_steps: int = 10
    local_lr: float = 0.01

    def __post_init__(self) -> None:
        check_types(self)
        require(self.local_steps >= 1, "local_steps", self.local_steps, "at least 1")
        require(0 < self.local_lr < math.inf, "local_lr", self.local_lr, "positive and finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateConfig:
    """server_lr: the step of the server."""

    server_lr: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.server_lr < math.inf, "server_lr", self.server_lr, "positive and finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(RateConfig):
    """server_lr, server_optimizer, server_momentum: what the server does with what it has averaged.

    sgd with 1 and 0 is plain averaging.
    """

    server_optimizer: OptimizerName = "sgd"
    server_momentum: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "server_momentum": one_of("server_optimizer", "sgd"),
    }

    def __post_init__(self) -> None:
        RateConfig.__post_init__(self)
        momentum = self.server_momentum
        require(0 <= momentum < 1, "server_momentum", momentum, "at least 0 and below 1")

    def optimizer(self) -> Optimizer:
        """Return the optimizer that these name."""
        return make_optimizer(self.server_optimizer, momentum=self.server_momentum)
