"""What an attacker who sees everything published can prove about epsilon.

The same mechanism runs many times on two neighboring data sets D and D'. The attacker knows both,
and computes after each run the log-likelihood ratio of what was published, the best statistic there
is (Neyman & Pearson, 1933). He says D' where it exceeds a threshold. Any (epsilon, delta)-private
mechanism limits how often he can be right:

    TPR <= e^epsilon FPR + delta

so rates that break it refute the claim. Both rates are bounded by Clopper & Pearson, "The Use of
Confidence or Fiducial Limits", Biometrika 1934; the thresholds are chosen on the first half of the
runs and the rates are counted on the other. Two lower bounds are made of them, four limits each at
a quarter of the error probability, so that both bounds hold together at the confidence:

    assumption-free:  epsilon >= log((TPR_low - delta) / FPR_high), and with D and D' exchanged
    Gaussian:         mu >= Phi^-1(TPR_low) - Phi^-1(FPR_high), and epsilon(mu, delta)

The second assumes that the mechanism is mu-GDP for some mu, as a composition of Gaussians is; it
sees much more with the same runs (Nasr et al., "Tight Auditing of Differentially Private Machine
Learning", USENIX Security 2023).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

from fedzo.config import require
from fedzo.privacy.accountant import epsilon_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditResult:
    """What was shown: lower bounds on epsilon at a confidence, beside the claim.

    epsilon_low: the Gaussian bound, epsilon_free: the assumption-free one. tpr, fpr: of the runs
    that were counted, `trials` of each data set.
    """

    claim: float
    delta: float
    confidence: float
    trials: int
    epsilon_low: float
    epsilon_free: float
    tpr: float
    fpr: float

    @property
    def refuted(self) -> bool:
        """Whether the claim is too low, at the confidence."""
        return max(self.epsilon_low, self.epsilon_free) > self.claim


def clopper_pearson(hits: int, trials: int, error: float) -> tuple[float, float]:
    """Return lower and upper limits of a rate, each wrong with probability `error` at most."""
    low = float(betaincinv(hits, trials - hits + 1, error)) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - error)) if hits < trials else 1.0
    return low, high


def audit_scores(
    without: Floats, with_canary: Floats, *, claim: float, delta: float, confidence: float = 0.95
) -> AuditResult:
    """Return bounds from log-likelihood ratios [t] of runs on D and of runs on D'.

    Raises ConfigError for fewer than twenty runs of each, or a confidence outside (0, 1).
    """
    require(min(len(without), len(with_canary)) >= 20, "trials", len(without), "at least 20")
    require(0 < confidence < 1, "confidence", confidence, "above 0 and below 1")
    half = len(without) // 2
    first, rest = (without[:half], with_canary[:half]), (without[half:], with_canary[half:])
    error = (1 - confidence) / 4
    candidates = np.unique(np.quantile(np.concatenate(first), np.linspace(0.01, 0.99, 99)))
    free = max(candidates, key=lambda t: _free(*first, t, delta, error))
    gaussian = max(candidates, key=lambda t: _mu(*first, t, error))
    mu = max(0.0, _mu(*rest, gaussian, error))
    return AuditResult(
        claim=claim,
        delta=delta,
        confidence=confidence,
        trials=len(rest[0]),
        epsilon_low=epsilon_of(mu, delta),
        epsilon_free=max(0.0, _free(*rest, free, delta, error)),
        tpr=float(np.mean(rest[1] > gaussian)),
        fpr=float(np.mean(rest[0] > gaussian)),
    )


def _limits(
    without: Floats, with_canary: Floats, threshold: float, error: float
) -> tuple[float, float]:
    """Return an upper limit of the false and a lower one of the true positive rate."""
    false, true = (int((scores > threshold).sum()) for scores in (without, with_canary))
    false_high = clopper_pearson(false, len(without), error)[1]
    return false_high, clopper_pearson(true, len(with_canary), error)[0]


def _mu(without: Floats, with_canary: Floats, threshold: float, error: float) -> float:
    false_high, true_low = _limits(without, with_canary, threshold, error)
    if true_low == 0 or false_high == 1:
        return -math.inf
    return float(ndtri(true_low) - ndtri(false_high))


def _free(
    without: Floats, with_canary: Floats, threshold: float, delta: float, error: float
) -> float:
    false_high, true_low = _limits(without, with_canary, threshold, error)
    one = _log_ratio(true_low - delta, false_high)
    return max(one, _log_ratio(1 - false_high - delta, 1 - true_low))


def _log_ratio(top: float, bottom: float) -> float:
    return math.log(top / bottom) if top > 0 and bottom > 0 else -math.inf
