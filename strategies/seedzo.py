"""Seed-ZO: finite differences along directions that all clients share, and an optimizer here.

    s_k = mean_i [f_i(x + mu u_k) - f_i(x)] / mu;   g = (d / m) sum_k s_k u_k;   x <- P(Adam(x, g))

The simplest of the methods that send numbers instead of vectors: Fang et al., "BAFFLE", ECCV 2024;
Qin et al., "FedKSeed", ICML 2024; Li et al., "DeComFL", ICLR 2025. Because every client moves along
the same u_k, the heterogeneity of their objectives cancels exactly in s_k. Shapes: x [d], slopes
[n, m]. Floats a client and round: d + 1 down, m up. Queries: m + 1, or 2m (central).

A robust rule (`strategy.aggregator`) acts on the slopes, in R^m. The u_k are orthonormal, so for a
rule that looks at distances alone this is the rule in R^d: a liar can only act inside the span of
the u_k, at a cost of m numbers a client.

Differs from the papers: one step a round, directions are rows of random orthonormal bases, Adam's
moments stay on the server, and x is sent where those papers send numbers to replay.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.optimizers import OptimizerName, OptimizerState, make_optimizer
from fedzo.oracle import project
from fedzo.protocol.questions.probes import ProbesConfig
from strategies.base import RoundStrategy
from strategies.robust import RobustConfig, aggregate
from strategies.rounds import Round, RoundConfig, RoundPlan
from strategies.shared_probes import probe


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedZOConfig(RobustConfig):
    """Settings of Seed-ZO: what the server does with the mean gradient estimate."""

    server_lr: float = 0.03
    server_optimizer: OptimizerName = "adam"
    server_momentum: float = 0.0

    def __post_init__(self) -> None:
        RobustConfig.__post_init__(self)
        require(0 < self.server_lr < math.inf, "server_lr", self.server_lr, "positive and finite")
        momentum = self.server_momentum
        require(0 <= momentum < 1, "server_momentum", momentum, "at least 0 and below 1")


@dataclass(frozen=True, slots=True)
class SeedZOState:
    """The global x, the optimizer's moments, and the next row of the sequence of bases."""

    x: Float[Tensor, " d"]
    moments: OptimizerState
    next_row: int = 0


class SeedZO(RoundStrategy[SeedZOState]):
    """Shared finite differences with a server optimizer."""

    def __init__(
        self,
        config: SeedZOConfig,
        *,
        client: ProbesConfig | None = None,
    ) -> None:
        self._config = config
        self._client = client or ProbesConfig()
        self._optimizer = make_optimizer(config.server_optimizer, momentum=config.server_momentum)

    @property
    def rounds(self) -> RoundConfig:
        return self._config

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> SeedZOState:
        self._config.require_clients(num_clients)
        return SeedZOState(x, self._optimizer.init(x))

    def round(self, state: SeedZOState, plan: RoundPlan) -> Round[SeedZOState]:
        probed = yield from probe(state.x, plan, state.next_row, self._client, slopes=True)
        if probed is None:
            return state
        slopes = aggregate(probed.values, self._config, plan, purpose="slopes")
        gradient = (len(state.x) / len(slopes)) * slopes @ probed.directions
        moments, x = self._optimizer.step(
            state.moments, state.x, gradient.to(state.x), self._config.server_lr
        )
        return SeedZOState(project(x, plan.lower, plan.upper), moments, probed.next_row)
