"""Buffered asynchronous averaging: the server steps with every K-th answer, however old.

    Delta = sum_j s(tau_j) d_j / K;   x <- P(server_step(x, -Delta))

d_j is an update from the x of tau_j steps ago. Nguyen et al., "Federated Learning with Buffered
Asynchronous Aggregation", AISTATS 2022, algorithm 1. `participation` says how many clients M work
at a time. K = M with refill=step is FedAvg, bit for bit. Shapes: updates [k, d]. Sent: d floats
down and d up for each answer; queries: the client rule's, counted when a client begins.

Differs from the paper: a client works at most once on an x; robust rules in the place of the mean.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fedzo.config import require, require_nonnegative
from fedzo.optimizers import OptimizerState
from fedzo.parts import composed, part
from fedzo.protocol.questions.training_config import TrainingConfig, ZerothOrderConfig
from fedzo.protocol.wave import Refill
from strategies.averaging.fedavg import local_training
from strategies.averaging.staleness import StalenessConfig, require_open
from strategies.core.asking import wave
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import RobustConfig, aggregate
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.server_step import server_step
from strategies.core.step_config import LocalConfig, ServerConfig


@composed
class FedBuffConfig:
    """Settings of FedBuff; it needs a virtual clock (fleet.preset).

    buffer: answers after which the server steps; 0 is half of those at work with refill=arrival,
    and all of them with step. refill: whether the next client begins with each arrival, or all that
    are missing after the server's step.
    """

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    local: LocalConfig = part(LocalConfig)
    server: ServerConfig = part(ServerConfig)
    old: StalenessConfig = part(StalenessConfig)
    buffer: int = 0
    refill: Refill = "arrival"

    def __post_init__(self) -> None:
        require_nonnegative("buffer", self.buffer)
        require_open(self.rounds)

    def until(self, at_work: int) -> int:
        """Return after how many answers the server steps; raises ConfigError for too many."""
        if not self.buffer:
            return at_work if self.refill == "step" else max(1, at_work // 2)
        told = f"at most {at_work}, as many as work at a time (strategy.participation)"
        require(self.buffer <= at_work, "strategy.buffer", self.buffer, told)
        return self.buffer


@dataclass(frozen=True, slots=True)
class FedBuffState:
    """The global x, and the server optimizer's moments."""

    x: Float[Tensor, " d"]
    moments: OptimizerState


class FedBuff(ConfiguredStrategy[FedBuffConfig, TrainingConfig, FedBuffState]):
    """Steps with every K-th answer."""

    asks_in_waves = True
    client_config = ZerothOrderConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedBuffState:
        return FedBuffState(x, self._optimizer.init(x))

    def round(self, state: FedBuffState, plan: RoundPlan) -> Round[FedBuffState]:
        config = self._config
        question = local_training(config.local, self._client, state.x)
        until = config.until(len(plan.cohort))
        landed = yield from wave(question, plan.cohort, until=until, refill=config.refill)
        if not len(landed):
            return state
        updates = landed.said.update
        weights = config.old.weights(landed.staleness).to(updates)
        update = aggregate(updates * weights.unsqueeze(1), config.robust, plan)
        return server_step(state, -update, plan, self._optimizer, config.server.server_lr)
