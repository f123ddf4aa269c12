"""What strategies with differential privacy share: the budget, the noise, and when to stop.

A strategy charges its ledger before it asks, and ends the run instead of asking for what the
budget (epsilon, delta) no longer covers. What is private is every x and every vector that is
published, as functions of the clients' data. Not covered: the values and metrics by which a
simulation judges x, the share of shortened vectors, settings tuned on the same data, and how long
computing takes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from fedzo.privacy.accountant import EVERYBODY, Ledger, Sampling, noise_for
from fedzo.privacy.clipping import clip_rows
from fedzo.privacy.gaussian import gaussian_noise, num_averaged, sensitivity
from strategies.core.privacy_config import PrivacyConfig, PrivateConfig
from strategies.core.robust import aggregate
from strategies.core.rounds import PrivacySpent, RoundPlan, TooFewAnswers
from strategies.core.spending import Spent

_ROUNDING = 1 + 1e-6
"""Calibration and accounting agree to so much."""


def charged(
    spent: Spent,
    config: PrivacyConfig,
    releases: Sequence[tuple[float, int]],
    sampling: Sampling = EVERYBODY,
) -> Spent:
    """Return the ledger after further releases (z, count).

    Raises PrivacySpent where that exceeds the budget.
    """
    ledger = spent.ledger
    for noise_multiplier, count in releases:
        if count:
            ledger = ledger.after(noise_multiplier, count, sampling)
    now = replace(spent, ledger=ledger)
    own, whole = (
        part.epsilon(config.delta, adjacency=config.adjacency) for part in (ledger, now.whole)
    )
    if whole > config.epsilon * _ROUNDING:
        raise PrivacySpent(
            f"epsilon {whole:.4g}, and strategy.epsilon is {config.epsilon:g}; raise that, or"
            " strategy.noise_multiplier"
        )
    return replace(now, epsilon=own, epsilon_run=whole)


def scaled_to_budget(config: PrivacyConfig, ledger_of: Callable[[float], Ledger]) -> float:
    """Return the least factor of all noise multipliers at which a run's ledger keeps the budget.

    ledger_of: factor -> the ledger at the end of the run.
    """

    def excess(log_factor: float) -> float:
        ledger = ledger_of(math.exp(log_factor))
        return ledger.epsilon(config.delta, adjacency=config.adjacency) - config.epsilon

    low, high = -1.0, 1.0
    while excess(low) < 0:
        low -= 1
    while excess(high) > 0:
        high += 1
    found = brentq(excess, low, high, xtol=1e-5)  # type: ignore[no-untyped-call]
    return math.exp(float(found) + 1e-5)


def per_round(config: PrivacyConfig, plan: RoundPlan, sampling: Sampling = EVERYBODY) -> float:
    """Return the noise multiplier of one release a round that the budget allows for a run."""
    if config.noise_multiplier or not config.claims:
        return config.noise_multiplier
    rounds = max(1, plan.num_rounds) * plan.num_problems
    z = noise_for(config.epsilon, config.delta) * math.sqrt(rounds)
    if sampling == EVERYBODY:
        return z
    start = max(0.5, z * sampling.drawn / sampling.population)

    def ledger(factor: float) -> Ledger:
        return Ledger.empty().after(start * factor, rounds, sampling)

    return start * scaled_to_budget(config, ledger)


def noise_and_sampling(
    config: PrivacyConfig, plan: RoundPlan, sampling: Sampling, known: float = 0.0
) -> tuple[float, Sampling]:
    """Return the noise multiplier of one release a round, and how its samples are accounted for.

    As such, or as if everybody contributed: both are bounds, and Renyi's, of large samples without
    replacement, may be the looser one. known: the multiplier, where that was found before.
    """
    z = known or min(per_round(config, plan, each) for each in {EVERYBODY, sampling})
    if not z or sampling == EVERYBODY:
        return z, sampling
    rounds = max(1, plan.num_rounds) * plan.num_problems

    def cost(each: Sampling) -> float:
        ledger = Ledger.empty().after(z, rounds, each)
        return ledger.epsilon(config.delta, adjacency=config.adjacency)

    return z, min((EVERYBODY, sampling), key=cost)


@dataclass(frozen=True, slots=True)
class Release:
    """One release of an average: its clip norm and noise multiplier, and the least n_p."""

    clip_norm: float
    noise_multiplier: float
    num_records: int = 1

    def std(self, config: PrivacyConfig, averaged: int) -> float:
        """Return the noise's standard deviation in an average of so many."""
        if self.noise_multiplier == 0 or self.clip_norm == 0:
            return 0.0
        moved = sensitivity(
            self.clip_norm,
            unit=config.unit,
            adjacency=config.adjacency,
            num_records=self.num_records,
            averaged=averaged,
        )
        return self.noise_multiplier * moved

    def share(self, config: PrivacyConfig, num_clients: int) -> float:
        """Return the std that each of the clients adds, so that their mean has enough noise."""
        return self.std(config, num_clients) * math.sqrt(num_clients)


@dataclass(frozen=True, slots=True)
class Published:
    """A private mean, the std of its noise, and the share of vectors that the server shortened."""

    mean: Float[Tensor, " d"]
    std: float
    shortened: float | None = None


def private_mean(
    vectors: Float[Tensor, "n d"],
    release: Release,
    config: PrivateConfig,
    plan: RoundPlan,
    *,
    purpose: str = "release",
) -> Published:
    """Return the aggregate of clipped vectors with noise.

    The server clips again what clients say that they have clipped, for one of them may lie. Where
    clients add the noise, all of the cohort must answer: raises TooFewAnswers.
    """
    robust, privacy = config.robust, config.privacy
    k = num_averaged(robust.rule, len(vectors), robust.num_byzantine)
    if privacy.noise == "clients":
        if len(vectors) < len(plan.cohort):
            raise TooFewAnswers(
                f"round {plan.round_index}: {len(vectors)} of {len(plan.cohort)} clients answered,"
                " and noise=clients is enough only when all do"
            )
        return Published(aggregate(vectors, robust, plan), release.std(privacy, k))
    clipped = clip_rows(vectors.double(), release.clip_norm)
    mean = aggregate(clipped.sums, robust, plan, purpose=purpose)  # or too few, before k is used
    std = release.std(privacy, k)
    where = (purpose, plan.problem, plan.round_index)
    noise = gaussian_noise(len(mean), std, privacy.noise_source, plan.seed, *where)
    shortened = float(clipped.shortened.mean()) if privacy.report_shortened else None
    return Published((mean + noise).to(vectors.dtype), std, shortened)


def share_shortened(told: Float[Tensor, "n 1"] | None) -> float | None:
    """Return the share of shortened vectors, where clients report it."""
    return None if told is None or not len(told) else float(told.mean())
