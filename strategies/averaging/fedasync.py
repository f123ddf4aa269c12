"""Asynchronous averaging: the server mixes in every answer as it comes.

    x <- P((1 - a) x + a x_i),   a = alpha s(tau),   x_i = x_v + d_i

Xie et al., "Asynchronous Federated Optimization", 2019, algorithm 1; clients send d_i, so the
server keeps the x_v that somebody still works on. `participation` says how many clients work at a
time.
Shapes: x [d], kept [v, d]. Sent: d floats down and d up for each answer.

Differs from the paper: no proximal term; x is projected onto the box.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.config import require
from fedzo.objectives.oracle import project
from fedzo.parts import composed, part
from fedzo.protocol.questions.training_config import TrainingConfig, ZerothOrderConfig
from strategies.averaging.fedavg import local_training
from strategies.averaging.staleness import StalenessConfig
from strategies.core.asking import wave
from strategies.core.configured import ConfiguredStrategy
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.step_config import FallingConfig
from strategies.core.wave_config import require_open


@composed
class FedAsyncConfig:
    """Settings of FedAsync; it needs a clock, or answers by arrival (docs/time.md).

    alpha: how much of an answer that is up to date becomes x.
    """

    rounds: RoundConfig = part(RoundConfig)
    local: FallingConfig = part(FallingConfig)
    old: StalenessConfig = part(StalenessConfig)
    alpha: float = 0.6

    def __post_init__(self) -> None:
        require(0 < self.alpha <= 1, "alpha", self.alpha, "above 0, at most 1")
        require_open(self.rounds)


@dataclass(frozen=True, slots=True)
class FedAsyncState:
    """The global x, and those of earlier rounds that somebody works on, by round."""

    x: Float[Tensor, " d"]
    rounds: Int[Tensor, " v"]
    kept: Float[Tensor, "v d"]


class FedAsync(ConfiguredStrategy[FedAsyncConfig, TrainingConfig, FedAsyncState]):
    """Mixes in every answer."""

    asks_in_waves = True
    client_config = ZerothOrderConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedAsyncState:
        return FedAsyncState(x, torch.empty(0, dtype=torch.int64), x.new_empty(0, len(x)))

    def round(self, state: FedAsyncState, plan: RoundPlan) -> Round[FedAsyncState]:
        config, now = self._config, plan.round_index
        question = local_training(config.local, self._client, state.x, plan.round_index)
        landed = yield from wave(question, plan.cohort, until=1, refill="arrival")
        rounds = torch.cat([state.rounds, torch.tensor([now])])
        kept = torch.cat([state.kept, state.x.unsqueeze(0)])
        x = state.x
        if len(landed):
            [age] = landed.staleness.tolist()
            begun = kept[torch.searchsorted(rounds, now - age)]  # a spoilt round kept none
            share = config.alpha * float(config.old.weights(landed.staleness)[0])
            x = project(x + share * (begun + landed.said.update[0] - x), plan.lower, plan.upper)
        alive = rounds >= landed.oldest
        return replace(state, x=x, rounds=rounds[alive], kept=kept[alive])
