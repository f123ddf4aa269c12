"""What happens on the server: one strategy a file, and the driver that runs all of them."""

from strategies.base import RoundStrategy
from strategies.driver import Outcome, Snapshot, run_rounds
from strategies.fedavg import FedAvg
from strategies.fedavg_config import FedAvgConfig
from strategies.rounds import RoundConfig, RoundPlan

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
