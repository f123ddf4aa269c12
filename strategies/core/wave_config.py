"""What a strategy can be told whose clients work on while the server goes on."""

from dataclasses import dataclass

from fedzo.config import check_types, require, require_nonnegative
from fedzo.protocol.wave import Refill
from strategies.core.rounds import RoundConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveConfig:
    """How many answers a server goes on with.

    buffer: answers after which the server steps; 0 is half of those at work with refill=arrival,
    and all of them with step. refill: whether the next client begins with each arrival, or all that
    are missing after the server's step.
    """

    buffer: int = 0
    refill: Refill = "arrival"

    def __post_init__(self) -> None:
        check_types(self)
        require_nonnegative("buffer", self.buffer)

    def until(self, at_work: int) -> int:
        """Return after how many answers the server steps; raises ConfigError for too many."""
        if not self.buffer:
            return at_work if self.refill == "step" else max(1, at_work // 2)
        told = f"at most {at_work}, as many as work at a time (strategy.participation)"
        require(self.buffer <= at_work, "strategy.buffer", self.buffer, told)
        return self.buffer


def require_open(rounds: RoundConfig) -> None:
    """Raise ConfigError for settings of rounds that mean nothing where the server goes on."""
    for name in ("over_selection", "min_answers"):
        value = getattr(rounds, name)
        require(value == 1, name, value, "1, for a server that waits for nobody")
