"""The server's step along a gradient: its optimizer, and projection onto the box.

    x <- P(server_step(x, gradient))

Server optimizers: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2. Shapes:
x, gradient [d].
"""

from dataclasses import Field, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fedzo.objectives.oracle import project
from fedzo.optimizers import Optimizer, OptimizerState
from strategies.core.rounds import RoundPlan


@runtime_checkable
class Stepping(Protocol):
    """A state that the server steps: x, and its optimizer's moments."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def x(self) -> Float[Tensor, " d"]: ...

    @property
    def moments(self) -> OptimizerState: ...


SteppingT = TypeVar("SteppingT", bound=Stepping)


def server_step(
    state: SteppingT,
    gradient: Float[Tensor, " d"],
    plan: RoundPlan,
    optimizer: Optimizer,
    lr: float,
) -> SteppingT:
    """Return the state with x and moments after the step."""
    moments, x = optimizer.step(state.moments, state.x, gradient, lr)
    return replace(state, x=project(x, plan.lower, plan.upper), moments=moments)
