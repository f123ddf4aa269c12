"""FedProx: federated averaging whose clients are drawn back to the server's x.

    client: g <- g + weight (x_i - x)

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, algorithm 2. Sent and
queried: as FedAvg. Differs from the paper: the weight multiplies the gradient of the proximal term
within any local optimizer, and gradients are those of the zeroth-order rule, in the scale of the
objective's gradient: the published code of FZooS (arXiv 2308.04077) leaves out the factor d of its
estimator, which makes the same weight d times stronger and explains its poor FedProx.
"""

from fedzo.protocol.questions.training_config import TrainingConfig
from strategies.averaging.fedavg import FedAvg
from strategies.averaging.fedavg_config import FedProxConfig


def fedprox(config: FedProxConfig, *, client: TrainingConfig | None = None) -> FedAvg:
    """Return FedAvg with a proximal term in the clients' steps."""
    return FedAvg(config.averaging, client=client, proximal_weight=config.proximal_weight)
