"""What FZooS with a slope surrogate at the server knows between rounds, waiting or not."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedzo.surrogates.slope_geometry import Geometry
from fedzo.surrogates.slopes import SlopePrior, SlopeRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What clients answered at the current x, and the number of that point."""

    clients: Int[Tensor, " k"]
    values: Float[Tensor, " k"]
    point: int

    def of(self, clients: Int[Tensor, " k"]) -> "Anchor":
        """Return the part of those clients."""
        kept = torch.isin(self.clients, clients)
        return replace(self, clients=self.clients[kept], values=self.values[kept])


@dataclass(frozen=True, slots=True)
class Design:
    """The directions of a round: the first basis row of each block of them, one block or one a
    client; and where it was looked at before, what it would explain, and all rows' geometry then.
    """

    first: Int[Tensor, " b"]
    told: float = 0.0
    shape: Geometry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeState:
    """The iterate, the surrogate's rows and prior, and the step that the line search trusts.

    walked: the rows of the last line search, the newest; they join the others with the next ones,
    so that a round copies the rows once.
    """

    x: Float[Tensor, " d"]
    rows: SlopeRows
    walked: SlopeRows
    prior: SlopePrior
    anchor: Anchor
    step: float
    rho_measured: bool = False
    next_row: int = 0
    next_point: int = 1

    @property
    def answered(self) -> Anchor:
        """What clients have answered at x."""
        return self.anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class AsynchronousState:
    """The iterate, the surrogate, earlier points by round, and each client's last value.

    rounds: those of the earlier points; kept: the points; private: whether each client had
    directions of its own there. clients: those that have answered; asked: in which round they were
    asked what they answered last; values: what they said of that point.
    """

    x: Float[Tensor, " d"]
    rows: SlopeRows
    prior: SlopePrior
    step: float
    rho_measured: bool
    rounds: Int[Tensor, " v"]
    kept: Float[Tensor, "v d"]
    private: Bool[Tensor, " v"]
    clients: Int[Tensor, " k"]
    asked: Int[Tensor, " k"]
    values: Float[Tensor, " k"]
