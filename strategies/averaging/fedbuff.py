"""Buffered asynchronous averaging: the server steps with every K-th answer, however old.

    Delta = sum_j s(tau_j) d_j / K;   x <- P(server_step(x, -Delta))

d_j is an update from the x of tau_j steps ago. Nguyen et al., "Federated Learning with Buffered
Asynchronous Aggregation", AISTATS 2022, algorithm 1. `participation` says how many clients M work
at a time. K = M with refill=step is FedAvg, bit for bit. Shapes: updates [k, d]. Sent: d floats
down and d up for each answer; queries: the client rule's, counted when a client begins.

Differs from the paper: a client works at most once on an x; robust rules in the place of the mean.
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from fedzo.parts import composed, part
from fedzo.protocol.questions.training_config import TrainingConfig, ZerothOrderConfig
from strategies.averaging.fedavg import FedAvgState, local_training
from strategies.averaging.staleness import StalenessConfig
from strategies.core.asking import wave
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import RobustConfig, aggregate, latest, remembered
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.server_step import server_step
from strategies.core.step_config import FallingConfig, ServerConfig
from strategies.core.wave_config import WaveConfig, require_open


@composed
class FedBuffConfig:
    """Settings of FedBuff; it needs a clock, or answers by arrival (docs/time.md)."""

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    local: FallingConfig = part(FallingConfig)
    server: ServerConfig = part(ServerConfig)
    old: StalenessConfig = part(StalenessConfig)
    waves: WaveConfig = part(WaveConfig)

    def __post_init__(self) -> None:
        require_open(self.rounds)


class FedBuff(ConfiguredStrategy[FedBuffConfig, TrainingConfig, FedAvgState]):
    """Steps with every K-th answer."""

    asks_in_waves = True
    client_config = ZerothOrderConfig

    def steps_with(self, cohort: int) -> int:
        return self._config.waves.until(cohort)

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedAvgState:
        return FedAvgState(x, self._optimizer.init(x), remembered(self.robust, x))

    def round(self, state: FedAvgState, plan: RoundPlan) -> Round[FedAvgState]:
        config = self._config
        question = local_training(config.local, self._client, state.x, plan.round_index)
        until = self.steps_with(len(plan.cohort))
        landed = yield from wave(question, plan.cohort, until=until, refill=config.waves.refill)
        if not len(landed):
            return state
        updates = landed.said.update
        weights = config.old.weights(landed.staleness).to(updates)
        update = aggregate(updates * weights.unsqueeze(1), config.robust, plan, start=state.last)
        moved = server_step(state, -update, plan, self._optimizer, config.server.server_lr)
        return replace(moved, last=latest(self.robust, update, state.last))
