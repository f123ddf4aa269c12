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

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from fedzo.optimizers import OptimizerState
from fedzo.parts import composed, part
from fedzo.protocol.questions.probes import ProbesConfig
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import RobustConfig, aggregate
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.server_step import server_step
from strategies.core.step_config import ServerConfig
from strategies.shared.shared_probes import probe


@composed
class SeedZOConfig:
    """Settings of Seed-ZO: the server steps along the mean gradient estimate."""

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    server: ServerConfig = part(ServerConfig, server_lr=0.03, server_optimizer="adam")


@dataclass(frozen=True, slots=True)
class SeedZOState:
    """The global x, the optimizer's moments, and the next row of the sequence of bases."""

    x: Float[Tensor, " d"]
    moments: OptimizerState
    next_row: int = 0


class SeedZO(ConfiguredStrategy[SeedZOConfig, ProbesConfig, SeedZOState]):
    """Shared finite differences with a server optimizer."""

    client_config = ProbesConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> SeedZOState:
        return SeedZOState(x, self._optimizer.init(x))

    def round(self, state: SeedZOState, plan: RoundPlan) -> Round[SeedZOState]:
        probed = yield from probe(state.x, plan, state.next_row, self._client, slopes=True)
        if probed is None:
            return state
        slopes = aggregate(probed.values, self.robust, plan, purpose="slopes")
        gradient = ((len(state.x) / len(slopes)) * slopes @ probed.directions).to(state.x)
        lr = self._config.server.server_lr
        moved = server_step(state, gradient, plan, self._optimizer, lr)
        return replace(moved, next_row=probed.next_row)
