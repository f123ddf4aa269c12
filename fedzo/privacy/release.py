"""What a release is to an accountant: how noisy, how often, of whose data."""

from dataclasses import dataclass
from typing import Literal

AccountantName = Literal["auto", "pld", "rdp"]
Row = tuple[float, int, int, int]
"""Noise multiplier, count, and the code of a sampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Who contributes to a release: a sample of `drawn` out of `population`, or everybody (0 of 0).

    fixed_size: exactly so many without replacement; else each with probability drawn / population.
    """

    drawn: int = 0
    population: int = 0
    fixed_size: bool = True

    @property
    def code(self) -> tuple[int, int]:
        """Return it as two integers; a negative second one says Poisson."""
        if self.drawn == self.population:
            return 0, 0
        return self.drawn, self.population if self.fixed_size else -self.population


EVERYBODY = Sampling()
