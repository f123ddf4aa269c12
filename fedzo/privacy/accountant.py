"""What has been released, what that costs, and how much noise a budget asks for.

    n_i releases with Gaussian noise of z_i sensitivities, in any order, each as you like it after
    the ones before, are mu-GDP:   mu^2 = sum_i n_i / z_i^2
    delta(epsilon) = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu)

Dong, Roth & Su, "Gaussian Differential Privacy", JRSS B 2022, corollaries 1 and 2 of section 3; the
curve is exact. The numbers come from dp-accounting: its closed form for releases to which every
record contributes, its privacy loss distributions (PLD) for Poisson samples, its Renyi accountant
(RDP) for samples of fixed size.

A noise multiplier z is always std / (L2 sensitivity under the adjacency that is claimed). Pitfall
of dp-accounting 0.6: its PLD accountant doubles the sensitivity for REPLACE_ONE by itself, its RDP
accountant does not. So plain releases are told to both as ADD_OR_REMOVE_ONE, for which z is all
that matters; Poisson samples with replace_one go to the PLD accountant with 2 z.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import dp_accounting as dp
import numpy as np
import torch
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS, compute_epsilon
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.privacy.gaussian import Adjacency

AccountantName = Literal["auto", "pld", "rdp"]
Row = tuple[float, int, int, int]


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


def noise_for(epsilon: float, delta: float) -> float:
    """Return z of a single release that costs (epsilon, delta): 1 / mu."""
    return float(dp.get_sigma_gaussian(epsilon, delta))


def epsilon_of(mu: float, delta: float) -> float:
    """Return epsilon of a mu-GDP mechanism."""
    return 0.0 if mu == 0 else float(dp.get_epsilon_gaussian(1 / mu, delta))


@lru_cache(maxsize=4096)
def _epsilon(
    rows: tuple[Row, ...], delta: float, adjacency: Adjacency, accountant: AccountantName
) -> float:
    if not rows:
        return 0.0
    if any(z == 0 for z, _, _, _ in rows):
        return float("inf")
    sampled = [row for row in rows if row[2]]
    if not sampled and accountant == "auto":
        return epsilon_of(mu_of([(z, n) for z, n, _, _ in rows]), delta)
    if sampled and any(p > 0 for _, _, _, p in sampled):
        return _by_renyi(rows, delta, adjacency, accountant)
    found = _accountant(rows, adjacency, accountant)
    return float(found.get_epsilon(delta))


def _by_renyi(
    rows: Sequence[Row], delta: float, adjacency: Adjacency, accountant: AccountantName
) -> float:
    """Return epsilon where some samples have a fixed size: RDP with replace_one alone knows them.

    Renyi divergences add up, so those of one release of each kind are computed once.
    """
    if adjacency != "replace_one" or accountant == "pld" or any(p < 0 for _, _, _, p in rows):
        raise ConfigError(
            "samples of fixed size are accounted for by RDP with adjacency=replace_one, and without"
            " Poisson samples; set strategy.adjacency=replace_one"
        )
    total = sum(count * _renyi(z, drawn, population) for z, count, drawn, population in rows)
    return float(compute_epsilon(DEFAULT_RDP_ORDERS, total, delta)[0])


@lru_cache(maxsize=256)
def _renyi(z: float, drawn: int, population: int) -> NDArray[np.float64]:
    """Return the Renyi divergence of one release at each of dp-accounting's orders."""
    relation = dp.NeighboringRelation.REPLACE_ONE
    accountant = RdpAccountant(DEFAULT_RDP_ORDERS, relation)
    accountant.compose(_event(z, drawn, population))
    return np.asarray(accountant._rdp)


def _accountant(
    rows: Sequence[Row], adjacency: Adjacency, accountant: AccountantName
) -> dp.PrivacyAccountant:
    """Return dp-accounting's accountant with the releases composed."""
    poisson = any(b for _, _, b, _ in rows)
    relation = dp.NeighboringRelation.REPLACE_ONE
    alone = dp.NeighboringRelation.ADD_OR_REMOVE_ONE
    if poisson and adjacency == "replace_one":
        if accountant == "rdp":
            raise ConfigError("Poisson samples with adjacency=replace_one are accounted for by PLD")
        return _composed(PLDAccountant(relation), rows, 2.0)
    if accountant == "rdp":
        return _composed(RdpAccountant(neighboring_relation=alone), rows, 1.0)
    return _composed(PLDAccountant(alone), rows, 1.0)


def _composed(
    accountant: dp.PrivacyAccountant, rows: Sequence[Row], factor: float
) -> dp.PrivacyAccountant:
    for z, count, drawn, population in rows:
        accountant.compose(_event(factor * z, drawn, population), count)
    return accountant


def _event(z: float, drawn: int, population: int) -> dp.DpEvent:
    gaussian = dp.GaussianDpEvent(z)
    if not drawn:
        return gaussian
    if population < 0:
        return dp.PoissonSampledDpEvent(drawn / -population, gaussian)
    return dp.SampledWithoutReplacementDpEvent(population, drawn, gaussian)
