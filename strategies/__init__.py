"""What happens on the server: one strategy a file, and the driver that runs all of them."""

from strategies.averaging.fedavg import FedAvg
from strategies.averaging.fedavg_config import FedAvgConfig
from strategies.core.base import RoundStrategy
from strategies.core.driver import Outcome, Snapshot, run_rounds
from strategies.core.rounds import RoundConfig, RoundPlan

__all__ = [
    "FedAvg",
    "FedAvgConfig",
    "Outcome",
    "RoundConfig",
    "RoundPlan",
    "RoundStrategy",
    "Snapshot",
    "run_rounds",
]
