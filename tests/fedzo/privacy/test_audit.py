"""The audit's statistics: exact limits, and bounds that keep their promise on known mechanisms."""

import numpy as np
import pytest
from scipy.stats import beta

from fedzo.errors import ConfigError
from fedzo.privacy.accountant import epsilon_of
from fedzo.privacy.audit import audit_scores, clopper_pearson
from fedzo.randomness import stream

DELTA = 1e-5


def scores(mu: float, trials: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood ratios of a mu-GDP mechanism: N(-mu^2 / 2, mu^2) and N(mu^2 / 2, mu^2)."""
    random = stream(seed, "scores")
    noise = mu * random.standard_normal((2, trials))
    return noise[0] - mu * mu / 2, noise[1] + mu * mu / 2


def test_limits_are_clopper_and_pearsons() -> None:
    for hits, trials in ((0, 10), (3, 10), (10, 10), (57, 400)):
        low, high = clopper_pearson(hits, trials, 0.025)
        assert low == (0 if hits == 0 else pytest.approx(beta.ppf(0.025, hits, trials - hits + 1)))
        expected = beta.ppf(0.975, hits + 1, trials - hits)
        assert high == (1 if hits == trials else pytest.approx(expected))


@pytest.mark.slow
def test_bounds_hold_as_often_as_they_say() -> None:
    """400 audits of a mechanism that is exactly what it claims: at most 5 % may refute it."""
    for mu in (0.3, 1.5):
        claim = epsilon_of(mu, DELTA)
        found = [
            audit_scores(*scores(mu, 200, seed), claim=claim, delta=DELTA) for seed in range(400)
        ]
        assert sum(result.refuted for result in found) <= 0.05 * 400
        assert max(result.epsilon_low for result in found) > 0


def test_bounds_come_close_with_many_runs_and_catch_half_the_noise() -> None:
    mu = 1.0
    claim = epsilon_of(mu, DELTA)
    honest = audit_scores(*scores(mu, 40_000, 1), claim=claim, delta=DELTA)
    assert 0.9 * claim < honest.epsilon_low < claim
    assert 0.3 * claim < honest.epsilon_free < claim
    broken = audit_scores(*scores(2 * mu, 400, 2), claim=claim, delta=DELTA)
    assert broken.refuted
    assert broken.epsilon_low > claim


def test_no_difference_shows_nothing() -> None:
    same, _ = scores(1e-9, 400, 3)
    found = audit_scores(same, same[::-1].copy(), claim=1.0, delta=DELTA)
    assert found.epsilon_low < 0.5
    assert found.epsilon_free < 0.3
    assert not found.refuted


def test_too_few_runs_and_odd_confidences_are_refused() -> None:
    few, other = scores(1.0, 10, 4)
    with pytest.raises(ConfigError, match="trials=10 must be at least 20"):
        audit_scores(few, other, claim=1.0, delta=DELTA)
    many = scores(1.0, 100, 4)
    with pytest.raises(ConfigError, match=r"confidence=1\.0 must be above 0"):
        audit_scores(*many, claim=1.0, delta=DELTA, confidence=1.0)
