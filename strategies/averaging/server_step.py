"""The server's step along an aggregate: optimizer, projection onto the box, and the safeguard.

    x <- P(server_step(x, -update));   kept only if F falls, with `safeguard`

Server optimizers: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2. Shapes:
x, update [d].
"""

from dataclasses import Field, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fedzo.objectives.oracle import project
from fedzo.optimizers import Optimizer, OptimizerState
from strategies.averaging.fedavg_config import FedAvgConfig
from strategies.core.asking import Asking
from strategies.core.rounds import RoundPlan
from strategies.core.safeguard import better


@runtime_checkable
class Stepping(Protocol):
    """A state that the server steps: x, its optimizer's moments, and the last aggregate.

    last: empty unless the rule looks at it.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def x(self) -> Float[Tensor, " d"]: ...

    @property
    def moments(self) -> OptimizerState: ...

    @property
    def last(self) -> Float[Tensor, " l"]: ...


SteppingT = TypeVar("SteppingT", bound=Stepping)


def stepped(
    state: SteppingT,
    update: Float[Tensor, " d"],
    plan: RoundPlan,
    config: FedAvgConfig,
    optimizer: Optimizer,
) -> Asking[SteppingT]:
    """Return the state after the server's step; with a safeguard the cohort is asked."""
    moments, x = optimizer.step(state.moments, state.x, -update, config.server.server_lr)
    x = project(x, plan.lower, plan.upper)
    if config.safeguard:
        x = yield from better(state.x, x, plan, config.robust)
    last = update if config.robust.rule.learns else state.last
    return replace(state, x=x, moments=moments, last=last)
