"""The accountant: published numbers, the exact curve, and the pitfalls of the library beneath."""

import math

import dp_accounting as dp
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from fedzo.errors import ConfigError
from fedzo.privacy.accountant import Ledger, Sampling, epsilon_of, mu_of, noise_for
from fedzo.randomness import stream

DELTA = 1e-5


def by_hand(mu: float, delta: float) -> float:
    """Epsilon of a mu-GDP mechanism, from the formula."""

    def excess(epsilon: float) -> float:
        first = norm.cdf(mu / 2 - epsilon / mu)
        second = math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        return float(first - second - delta)

    return float(brentq(excess, 0, 400))


def test_published_numbers() -> None:
    whole = Ledger.empty().after(10.0, 100)
    assert whole.epsilon(DELTA, accountant="rdp") == pytest.approx(4.728507, abs=1e-6)
    assert whole.epsilon(DELTA, accountant="pld") == pytest.approx(4.377178, abs=1e-6)
    poisson = Sampling(drawn=10, population=1000, fixed_size=False)
    sampled = Ledger.empty().after(1.0, 1000, poisson)
    alone = {"adjacency": "zero_out"}
    assert sampled.epsilon(DELTA, accountant="rdp", **alone) == pytest.approx(2.101367, abs=1e-6)  # type: ignore[arg-type]
    assert sampled.epsilon(DELTA, **alone) == pytest.approx(1.828244, abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.slow
def test_twenty_random_pairs_of_releases_cost_what_theory_says() -> None:
    random = stream(7, "pairs")
    for _ in range(20):
        n1, n2 = (int(n) for n in random.integers(1, 400, 2))
        z1, z2 = (float(z) for z in random.uniform(15, 60, 2))
        ledger = Ledger.empty().after(z1, n1).after(z2, n2)
        mu = math.sqrt(n1 / z1**2 + n2 / z2**2)
        assert ledger.epsilon(DELTA) == pytest.approx(by_hand(mu, DELTA), rel=1e-6)
        library = PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
        library.compose(dp.GaussianDpEvent(z1), n1)
        library.compose(dp.GaussianDpEvent(z2), n2)
        assert ledger.epsilon(DELTA, accountant="pld") == library.get_epsilon(DELTA)
        assert ledger.epsilon(DELTA) == pytest.approx(library.get_epsilon(DELTA), rel=0.01)


def test_calibration_and_accounting_are_inverse() -> None:
    for epsilon in (0.1, 1.0, 3.0, 20.0):
        assert epsilon_of(1 / noise_for(epsilon, DELTA), DELTA) == pytest.approx(epsilon, rel=1e-6)
    assert 1 / noise_for(3.0, DELTA) == pytest.approx(0.71912, abs=1e-5)


def test_epsilon_grows_with_releases_and_falls_with_noise() -> None:
    costs = [Ledger.empty().after(20.0, n).epsilon(DELTA) for n in (1, 10, 100, 1000)]
    assert costs == sorted(costs)
    assert Ledger.empty().after(40.0, 100).epsilon(DELTA) < costs[2]
    assert Ledger.empty().epsilon(DELTA) == 0
    assert Ledger.empty().after(0.0).epsilon(DELTA) == math.inf


def test_equal_releases_share_a_row_and_order_does_not_matter() -> None:
    one = Ledger.empty().after(3.0).after(5.0).after(3.0, 4)
    other = Ledger.empty().after(5.0).after(3.0, 5)
    assert len(one.rows) == 2
    assert one.epsilon(DELTA) == other.epsilon(DELTA)
    assert mu_of([(3.0, 5), (5.0, 1)]) == pytest.approx(math.sqrt(5 / 9 + 1 / 25))


def test_doubling_pitfall_poisson_with_replaced_records_is_twice_the_sensitivity() -> None:
    """z = std / (2 C) told to the library as std / C: its PLD accountant doubles C by itself."""
    poisson = Sampling(drawn=100, population=1000, fixed_size=False)
    library = PLDAccountant(dp.NeighboringRelation.REPLACE_ONE)
    library.compose(dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(4.0)), 50)
    found = Ledger.empty().after(2.0, 50, poisson).epsilon(DELTA)
    assert found == library.get_epsilon(DELTA)
    everybody = Ledger.empty().after(2.0, 50).epsilon(DELTA)
    assert found < everybody
    whole = Sampling(drawn=1000, population=1000, fixed_size=False)
    assert Ledger.empty().after(2.0, 50, whole).epsilon(DELTA) == everybody


def test_samples_of_fixed_size_are_the_librarys_and_compose_with_others() -> None:
    library = RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    sample = dp.SampledWithoutReplacementDpEvent(1000, 50, dp.GaussianDpEvent(2.0))
    library.compose(sample, 40)
    library.compose(dp.GaussianDpEvent(30.0), 100)
    ledger = Ledger.empty().after(2.0, 40, Sampling(drawn=50, population=1000)).after(30.0, 100)
    assert ledger.epsilon(DELTA) == pytest.approx(library.get_epsilon(DELTA), rel=1e-9)


@pytest.mark.parametrize("case", ["zero_out", "pld", "mixed"])
def test_what_nobody_accounts_for_is_refused(case: str) -> None:
    ledger = Ledger.empty().after(2.0, 4, Sampling(drawn=5, population=100))
    if case == "mixed":
        ledger = ledger.after(2.0, 4, Sampling(drawn=5, population=100, fixed_size=False))
    with pytest.raises(ConfigError, match="samples of fixed size are accounted for by RDP"):
        ledger.epsilon(
            DELTA,
            adjacency="zero_out" if case == "zero_out" else "replace_one",
            accountant="pld" if case == "pld" else "auto",
        )
    poisson = Ledger.empty().after(2.0, 4, Sampling(drawn=5, population=100, fixed_size=False))
    with pytest.raises(ConfigError, match="accounted for by PLD"):
        poisson.epsilon(DELTA, accountant="rdp")
