"""Settings of methods whose clients take local steps and whose server steps along their mean."""

from typing import Literal

from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.parts import composed, part
from strategies.core.robust import RobustConfig
from strategies.core.rounds import RoundConfig
from strategies.core.step_config import FallingConfig, ServerConfig


@composed
class FedAvgConfig:
    """Settings of FedAvg and FedZO.

    weighting: "uniform", or "examples" for clients that count them, which lowers the mean over
    examples, and not F, the plain mean of clients, by which x is judged. safeguard: whether the
    cohort is asked for its values at the old and the new x, and the old one is kept unless F has
    fallen.
    """

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    local: FallingConfig = part(FallingConfig)
    server: ServerConfig = part(ServerConfig)
    weighting: Literal["uniform", "examples"] = "uniform"
    safeguard: bool = False

    def __post_init__(self) -> None:
        if self.weighting != "uniform" and not self.robust.rule.is_mean:
            raise ConfigError(
                f"weighting={self.weighting} has no meaning for"
                f" aggregator={self.robust.aggregator!r}, which counts everybody the same; set it"
                " to uniform"
            )


@composed
class FedProxConfig:
    """Settings of FedProx: proximal_weight, and those of FedAvg, whose rounds it runs."""

    averaging: FedAvgConfig = part(FedAvgConfig)
    proximal_weight: float = 1.0

    def __post_init__(self) -> None:
        require(self.proximal_weight >= 0, "proximal_weight", self.proximal_weight, "0 or more")
