"""Epsilon of composed releases, from dp-accounting's accountants.

Pitfall of dp-accounting 0.6: its PLD accountant doubles the sensitivity for REPLACE_ONE by itself,
its RDP accountant does not. So plain releases are told to both as ADD_OR_REMOVE_ONE, for which z is
all that matters; Poisson samples with replace_one go to the PLD accountant with 2 z.
"""

from collections.abc import Sequence
from functools import lru_cache

import dp_accounting as dp
import numpy as np
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS, compute_epsilon
from numpy.typing import NDArray

from fedzo.errors import ConfigError
from fedzo.privacy.gaussian import Adjacency
from fedzo.privacy.release import AccountantName, Row


def composed_epsilon(
    rows: Sequence[Row], delta: float, adjacency: Adjacency, accountant: AccountantName
) -> float:
    """Return epsilon of releases (z, count, drawn, population), all of them with noise.

    Raises ConfigError where the accountant does not know the sampling under this adjacency.
    """
    if any(drawn and population > 0 for _, _, drawn, population in rows):
        return _by_renyi(rows, delta, adjacency, accountant)
    return float(_accountant(rows, adjacency, accountant).get_epsilon(delta))


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
