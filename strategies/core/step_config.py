"""What strategies can be told of steps: of the clients' local ones, and of the server's."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fedzo.config import check_types, require
from fedzo.optimizers import WITH_MOMENTUM, Optimizer, OptimizerName, make_optimizer
from fedzo.used_with import UsedWith, above, one_of


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
class FallingConfig(LocalConfig):
    """local_steps, local_lr: what each client does in a round.

    lr_period, lr_decay: how local_lr falls. After so many rounds, twice as many, ... it is a half,
    a third, ... (inverse), 1 / sqrt(2), 1 / sqrt(3), ... (sqrt), or a half, a quarter, ...
    (halving) of what it was; 0 keeps it.
    """

    lr_period: int = 0
    lr_decay: Literal["inverse", "sqrt", "halving"] = "inverse"
    USED_WITH: ClassVar[UsedWith] = {"lr_decay": above("lr_period", 0)}

    def __post_init__(self) -> None:
        LocalConfig.__post_init__(self)
        require(self.lr_period >= 0, "lr_period", self.lr_period, "0 (constant) or more")

    def told(self, round_index: int) -> dict[str, Any]:
        """Return the steps and the rate of a round, counted from 1, as questions name them."""
        fallen = (round_index - 1) // self.lr_period if self.lr_period else 0
        halved = 2.0 ** min(fallen, 1000)
        times = {"inverse": 1 + fallen, "sqrt": math.sqrt(1 + fallen), "halving": halved}
        return {"local_steps": self.local_steps, "local_lr": self.local_lr / times[self.lr_decay]}


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
        "server_momentum": one_of("server_optimizer", *WITH_MOMENTUM),
    }

    def __post_init__(self) -> None:
        RateConfig.__post_init__(self)
        momentum = self.server_momentum
        require(0 <= momentum < 1, "server_momentum", momentum, "at least 0 and below 1")

    def optimizer(self) -> Optimizer:
        """Return the optimizer that these name."""
        return make_optimizer(self.server_optimizer, momentum=self.server_momentum)
