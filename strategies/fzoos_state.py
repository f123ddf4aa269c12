"""What FZooS with a slope surrogate (strategies.fzoos_improved) knows between rounds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeState:
    """The iterate, the surrogate's rows and prior, and the step that the line search trusts."""

    x: Float[Tensor, " d"]
    rows: SlopeRows
    prior: SlopePrior
    anchor: Anchor
    step: float
    rho_measured: bool = False
    next_row: int = 0
    next_point: int = 1

    @property
    def answers(self) -> Mapping[int, float]:
        """What clients have answered at x."""
        pairs = zip(self.anchor.clients.tolist(), self.anchor.values.tolist(), strict=True)
        return dict(pairs)
