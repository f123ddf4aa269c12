"""FedProx: federated averaging whose clients are drawn back to the server's x.

    client: g <- g + weight (x_i - x)

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, algorithm 2. Sent and
queried: as FedAvg. Differs from the paper: the weight multiplies the gradient of the proximal term
within any local optimizer, and gradients are those of the zeroth-order rule, in the scale of the
objective's gradient: the published code of FZooS (arXiv 2308.04077) leaves out the factor d of its
estimator, which makes the same weight d times stronger and explains its poor FedProx.
"""

from dataclasses import dataclass

from fedzo.config import require
from strategies.fedavg_config import FedAvgConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FedProxConfig(FedAvgConfig):
    """Settings of FedProx: proximal_weight, and those of FedAvg, whose rounds it runs."""

    proximal_weight: float = 1.0

    def __post_init__(self) -> None:
        FedAvgConfig.__post_init__(self)
        require(self.proximal_weight >= 0, "proximal_weight", self.proximal_weight, "0 or more")
