"""How much an answer counts whose question is old, in steps of the server since then.

    constant     s = 1
    polynomial   s = (1 + tau)^-a
    hinge        s = 1 if tau <= b, else 1 / (a (tau - b) + 1)

Xie et al., "Asynchronous Federated Optimization", 2019, section 5.2; FedBuff's is the polynomial
with a = 1/2.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.config import check_types, require_nonnegative
from fedzo.used_with import UsedWith, one_of, other_than


@dataclass(frozen=True, slots=True, kw_only=True)
class StalenessConfig:
    """staleness: the law by which old answers count less; staleness_power: a; hinge_from: b."""

    staleness: Literal["polynomial", "constant", "hinge"] = "polynomial"
    staleness_power: float = 0.5
    hinge_from: int = 4
    USED_WITH: ClassVar[UsedWith] = {
        "staleness_power": other_than("staleness", "constant"),
        "hinge_from": one_of("staleness", "hinge"),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require_nonnegative("staleness_power", self.staleness_power)
        require_nonnegative("hinge_from", self.hinge_from)

    def weights(self, staleness: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        """Return what answers of such ages count; 1 for those that are up to date."""
        tau = staleness.double()
        if self.staleness == "constant":
            return torch.ones_like(tau)
        if self.staleness == "polynomial":
            return (1 + tau) ** -self.staleness_power
        late = (tau - self.hinge_from).clamp(min=0)
        return 1 / (self.staleness_power * late + 1)
