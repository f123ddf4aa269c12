"""Settings of methods whose clients take local steps and whose server steps along their mean."""

import math
from dataclasses import dataclass
from typing import Literal

from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.optimizers import OptimizerName
from strategies.robust import RobustConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvgConfig(RobustConfig):
    """Settings of FedAvg and FedZO.

    local_steps, local_lr: what each client does in a round. server_lr, server_optimizer,
    server_momentum: what the server does with the mean update; sgd with 1 and 0 is plain averaging.
    weighting: "uniform", or "examples" for clients that count them. safeguard: whether the cohort
    is asked for its values at the old and the new x, and the old one is kept unless F has fallen.
    """

    local_steps: int = 10
    local_lr: float = 0.01
    server_lr: float = 1.0
    server_optimizer: OptimizerName = "sgd"
    server_momentum: float = 0.0
    weighting: Literal["uniform", "examples"] = "uniform"
    safeguard: bool = False

    @property
    def proximal_weight(self) -> float:
        """That of FedProx in clients' steps."""
        return 0.0

    def __post_init__(self) -> None:
        RobustConfig.__post_init__(self)
        require(self.local_steps >= 1, "local_steps", self.local_steps, "at least 1")
        require(0 < self.local_lr < math.inf, "local_lr", self.local_lr, "positive and finite")
        require(0 < self.server_lr < math.inf, "server_lr", self.server_lr, "positive and finite")
        momentum = self.server_momentum
        require(0 <= momentum < 1, "server_momentum", momentum, "at least 0 and below 1")
        if self.weighting != "uniform" and not self.rule.is_mean:
            raise ConfigError(
                f"weighting={self.weighting} has no meaning for aggregator={self.aggregator!r},"
                " which counts everybody the same; set it to uniform"
            )
