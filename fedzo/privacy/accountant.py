"""What has been released, what that costs, and how much noise a budget asks for.

    n_i releases with Gaussian noise of z_i sensitivities, in any order, each as you like it after
    the ones before, are mu-GDP:   mu^2 = sum_i n_i / z_i^2
    delta(epsilon) = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu)

Dong, Roth & Su, "Gaussian Differential Privacy", JRSS B 2022, corollaries 1 and 2 of section 3; the
curve is exact. The numbers come from dp-accounting (fedzo.privacy.composition): its closed form for
releases to which every record contributes, its privacy loss distributions (PLD) for Poisson
samples, its Renyi accountant (RDP) for samples of fixed size. It takes a second to import, which
only private runs pay.

A noise multiplier z is always std / (L2 sensitivity under the adjacency that is claimed).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.privacy.gaussian import Adjacency
from fedzo.privacy.release import EVERYBODY, AccountantName, Row, Sampling

__all__ = ["EVERYBODY", "Ledger", "Sampling", "epsilon_of", "noise_for"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Releases so far, as rows (z, count, drawn, population) of float64 numbers.

    It is a state: replaced at each release, and saved in checkpoints as one tensor.
    """

    rows: Float[Tensor, "k 4"]

    @staticmethod
    def empty() -> "Ledger":
        return Ledger(torch.zeros(0, 4, dtype=torch.float64))

    def after(
        self, noise_multiplier: float, count: int = 1, sampling: Sampling = EVERYBODY
    ) -> "Ledger":
        """Return the ledger with further releases; z = 0, no noise, makes it unlimited."""
        drawn, population = sampling.code
        row = torch.tensor([noise_multiplier, 0, drawn, population], dtype=torch.float64)
        same = (self.rows[:, [0, 2, 3]] == row[[0, 2, 3]]).all(dim=1)
        rows = self.rows if bool(same.any()) else torch.cat([self.rows, row.unsqueeze(0)])
        rows = rows.clone()
        rows[int(same.nonzero()[0]) if bool(same.any()) else -1, 1] += count
        return Ledger(rows)

    def joined(self, other: "Ledger") -> "Ledger":
        """Return the ledger of the releases of both, about the same data."""
        ledger = self
        for z, count, drawn, population in other.rows.tolist():
            fixed = Sampling(
                drawn=int(drawn), population=abs(int(population)), fixed_size=population >= 0
            )
            ledger = ledger.after(z, int(count), fixed)
        return ledger

    def epsilon(
        self,
        delta: float,
        *,
        adjacency: Adjacency = "replace_one",
        accountant: AccountantName = "auto",
    ) -> float:
        """Return the epsilon that the releases cost at this delta; infinite without noise.

        accountant: auto takes the exact curve where everybody contributes, else the one that knows
        the sampling. Raises ConfigError where none does.
        """
        rows = [(float(z), int(n), int(b), int(p)) for z, n, b, p in self.rows.tolist() if n > 0]
        return _epsilon(tuple(rows), delta, adjacency, accountant)


def mu_of(rows: Sequence[tuple[float, float]]) -> float:
    """Return mu of Gaussian releases (z, count)."""
    return math.sqrt(sum(count / z**2 for z, count in rows))


@lru_cache(maxsize=4096)
def noise_for(epsilon: float, delta: float) -> float:
    """Return z of a single release that costs (epsilon, delta): 1 / mu."""
    from dp_accounting import get_sigma_gaussian

    return float(get_sigma_gaussian(epsilon, delta))


@lru_cache(maxsize=4096)
def epsilon_of(mu: float, delta: float) -> float:
    """Return epsilon of a mu-GDP mechanism."""
    from dp_accounting import get_epsilon_gaussian

    return 0.0 if mu == 0 else float(get_epsilon_gaussian(1 / mu, delta))


@lru_cache(maxsize=4096)
def _epsilon(
    rows: tuple[Row, ...], delta: float, adjacency: Adjacency, accountant: AccountantName
) -> float:
    if not rows:
        return 0.0
    if any(z == 0 for z, _, _, _ in rows):
        return float("inf")
    if accountant == "auto" and not any(drawn for _, _, drawn, _ in rows):
        return epsilon_of(mu_of([(z, n) for z, n, _, _ in rows]), delta)
    from fedzo.privacy.composition import composed_epsilon

    return composed_epsilon(rows, delta, adjacency, accountant)
