"""The server's step along an aggregate of updates, with the safeguard of FedAvg and its kin.

    x <- P(server_step(x, -update));   kept only if F falls, with `safeguard`

Shapes: x, update [d].
"""

from dataclasses import replace
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fedzo.optimizers import Optimizer
from strategies.averaging.fedavg_config import FedAvgConfig
from strategies.core.asking import Asking
from strategies.core.robust import latest
from strategies.core.rounds import RoundPlan
from strategies.core.safeguard import better
from strategies.core.server_step import Stepping, server_step


@runtime_checkable
class Averaged(Stepping, Protocol):
    """A state that the server steps along an aggregate: the last one is in it, or nothing.

    last: empty unless the rule looks at it.
    """

    @property
    def last(self) -> Float[Tensor, " l"]: ...


AveragedT = TypeVar("AveragedT", bound=Averaged)


def stepped(
    state: AveragedT,
    update: Float[Tensor, " d"],
    plan: RoundPlan,
    config: FedAvgConfig,
    optimizer: Optimizer,
) -> Asking[AveragedT]:
    """Return the state after the server's step; with a safeguard the cohort is asked."""
    moved = server_step(state, -update, plan, optimizer, config.server.server_lr)
    if config.safeguard:
        moved = replace(moved, x=(yield from better(state.x, moved.x, plan, config.robust)))
    return replace(moved, last=latest(config.robust, update, state.last))
