"""Interpolation of recent slopes along shared directions (ReLIZO-style), and an optimizer here.

    rows: unit directions D [r, d] and mean slopes s [r] of this and earlier rounds within a radius
    g = D^T (D D^T)^+ s;   x <- P(Adam(x, g))

Wang et al., "ReLIZO: Sample Reusable Linear Interpolation-based Zeroth-order Optimization", NeurIPS
2024: the gradient of least norm that agrees with all differences. It is the limit of the slope
surrogate (fedzo.surrogates.slopes) at infinite lengthscale, and computed as such. Shapes and
queries: as strategies.shared.seedzo with forward differences; m + 1 floats up.

Differs from the paper: federated by shared directions; reused slopes are those whose midpoint lies
within reuse_radius of x, at most max_reuse times as many as new ones.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.objectives.oracle import project
from fedzo.optimizers import OptimizerState, make_optimizer
from fedzo.parts import composed, part
from fedzo.protocol.questions.probes import ProbesConfig
from fedzo.surrogates.slope_geometry import centered
from fedzo.surrogates.slope_posterior import condition
from fedzo.surrogates.slopes import SlopePrior, SlopeRows, join_rows, no_rows, rows_between
from fedzo.used_with import UsedWith, above, other_than
from strategies.core.configured import ConfiguredStrategy
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.server_step import server_step
from strategies.core.step_config import RateConfig
from strategies.shared.shared_probes import probe

_ADAM = make_optimizer("adam")
_LINEAR = SlopePrior(kernel="squared_exponential", lengthscale=1e9)


@composed
class ReLIZOConfig:
    """Settings: the server's Adam, and which old slopes are used again."""

    rounds: RoundConfig = part(RoundConfig)
    rate: RateConfig = part(RateConfig, server_lr=0.03)
    reuse_radius: float = 1.0
    max_reuse: float = 4.0
    USED_WITH: ClassVar[UsedWith] = {
        "client.estimator": other_than("strategy", "relizo"),
        "reuse_radius": above("max_reuse", 0),
    }

    def __post_init__(self) -> None:
        require(self.reuse_radius >= 0, "reuse_radius", self.reuse_radius, "0 or more")
        require(self.max_reuse >= 0, "max_reuse", self.max_reuse, "0 or more")


@dataclass(frozen=True, slots=True)
class ReLIZOState:
    """The global x, Adam's moments, the slopes in memory, and the next row of the bases."""

    x: Float[Tensor, " d"]
    moments: OptimizerState
    rows: SlopeRows
    next_row: int = 0


class ReLIZO(ConfiguredStrategy[ReLIZOConfig, ProbesConfig, ReLIZOState]):
    """Least-norm interpolation of shared slopes with server Adam."""

    client_config = ProbesConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> ReLIZOState:
        return ReLIZOState(x, _ADAM.init(x), no_rows(x.double()))

    def round(self, state: ReLIZOState, plan: RoundPlan) -> Round[ReLIZOState]:
        settings = replace(self._client, estimator="forward")
        probed = yield from probe(state.x, plan, state.next_row, settings, base=True)
        if probed is None:
            return state
        values, u, m = probed.values, probed.directions, len(probed.directions)
        x = state.x.double()
        numbers = torch.zeros(m, dtype=torch.int64)
        fresh = rows_between(
            x.expand(m, -1),
            project(x + settings.mu * u, plan.lower, plan.upper),
            (values[:, 1:] - values[:, :1]).mean(dim=0),
            owners=numbers.unsqueeze(1),
            start=numbers,
            end=numbers,
        )
        rows = join_rows([self._near(state.rows, x, m), fresh])
        gradient = condition(_LINEAR, centered(rows, x), 1).gradient(x.unsqueeze(0))[0]
        lr = self._config.rate.server_lr
        moved = server_step(state, gradient.to(state.x), plan, _ADAM, lr)
        return replace(moved, rows=rows, next_row=probed.next_row)

    def _near(self, rows: SlopeRows, x: Float[Tensor, " d"], new: int) -> SlopeRows:
        close = (rows.midpoint - x).norm(dim=1) <= self._config.reuse_radius
        return rows.take(close).newest(int(self._config.max_reuse * new))
