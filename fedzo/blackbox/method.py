"""What a method of black-box search is: a frozen state, points that it wants, values that it gets.

    state, points = method.propose(state)          points [k, d], k >= 1
    state = method.absorb(state, points, values)   values [k], inf where an evaluation failed

Points are in the coordinates of fedzo.blackbox.space: the start is about 0, one unit is the width
of the box where there is one. What a method knows is its state, so a saved state goes on at the
same bits; randomness comes from streams of the seed and of numbers in the state.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

StateT = TypeVar("StateT")

FIRST_SPREAD = 0.3
"""How far from the start, a coordinate, the best point is expected to be."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a method searches.

    start [d]; lower and upper [d], infinite where there is no bound; least [d]: the width of a step
    of a whole number, 0 for real coordinates; budget: evaluations that are left for the method,
    None for no end; parallel: how many points are evaluated at a time; constrained: points may be
    infeasible, of which a method gets an order and no value.
    """

    start: Float[Tensor, " d"]
    lower: Float[Tensor, " d"]
    upper: Float[Tensor, " d"]
    least: Float[Tensor, " d"]
    seed: int
    budget: int | None = None
    parallel: int = 1
    constrained: bool = False

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return len(self.start)

    @property
    def is_real(self) -> bool:
        """Whether all coordinates are real numbers."""
        return not bool(self.least.any())


@runtime_checkable
class Method(Protocol[StateT]):
    """A way to search; `name` is what a user types, `ranks` says whether an order is enough."""

    name: str
    ranks: bool

    def init(self) -> StateT:
        """Return the state before the first point."""
        ...

    def propose(self, state: StateT) -> tuple[StateT, Float[Tensor, "k d"]]:
        """Return the points to evaluate next, and the state that waits for their values."""
        ...

    def absorb(
        self, state: StateT, points: Float[Tensor, "k d"], values: Float[Tensor, " k"]
    ) -> StateT:
        """Return the state that knows the values; inf stands for a failure."""
        ...

    def around(self, state: StateT) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """Return where the method searches now: a center and a spread a coordinate."""
        ...

    def finished(self, state: StateT) -> str:
        """Return why the method can do no better; empty while it can."""
        ...
