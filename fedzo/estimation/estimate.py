"""A gradient as keys and coefficients, for whoever can do without a vector.

    g = sum_i c_i u_i,   u_i the direction of key i

m numbers stand for d: they are what travels, what a log keeps, and what is added to x where it is,
block by block. Shapes: coefficients [m], g [d].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.estimation.direction import Direction
from fedzo.estimation.place import Place, Term, add_terms_


@dataclass(frozen=True, slots=True)
class Estimate:
    """The sum of directions, as a rule drawn from keys, each times its coefficient."""

    keys: Sequence[Direction]
    coefficients: Float[Tensor, " m"]

    def terms(self, alpha: float = 1.0) -> list[Term]:
        """Return the summands of alpha g."""
        factors = (alpha * self.coefficients.double()).tolist()
        return list(zip(self.keys, factors, strict=True))

    def vector(
        self,
        dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Float[Tensor, " d"]:
        """Return g."""
        g = torch.zeros(dim, dtype=dtype, device=device)
        self.add_to_([g], 1.0)
        return g

    def add_to_(self, place: Place, alpha: float) -> None:
        """Add alpha g to x where it is."""
        add_terms_(place, self.terms(alpha))
