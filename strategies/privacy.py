"""What strategies with differential privacy share: the budget, the noise, and when to stop.

A strategy charges its ledger before it asks, and ends the run instead of asking for what the
budget (epsilon, delta) no longer covers. What is private is every x and every vector that is
published, as functions of the clients' data. Not covered: the values and metrics by which a
simulation judges x, the share of shortened vectors, settings tuned on the same data, and how long
computing takes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.privacy.accountant import EVERYBODY, Ledger, Sampling
from fedzo.privacy.clipping import clip_rows
from fedzo.privacy.gaussian import (
    Adjacency,
    NoiseSource,
    Unit,
    gaussian_noise,
    num_averaged,
    sensitivity,
)
from strategies.robust import RobustConfig, aggregate
from strategies.rounds import PrivacySpent, RoundPlan, StateT, TooFewAnswers

_ROUNDING = 1 + 1e-6
"""Calibration and accounting agree to so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig(RobustConfig):
    """What a private strategy can be told.

    epsilon, delta: the budget. noise_multiplier: std over sensitivity of every release; 0 makes it
    as small as the budget allows for the run's rounds, none for epsilon=inf. unit: whose data
    are protected, a record's or all of a client's. adjacency: whether neighboring data sets differ
    by one replaced, or one added or removed; numbers of records are public. min_records: that a
    client must have to take part, for which the noise of unit=record is made; 0 finds a number
    among what clients say (strategies.record_bounds). noise: who adds it: the server, once, or each
    client its share of it, so that nobody sees a mean without it. noise_source: os, the operating
    system's entropy, or stream, which repeats with the seed and is for simulations alone.
    report_shortened: whether the share of clipped vectors is written to the history; it is not
    private. outlier_multiple: inf, because who is left out would depend on data.
    """

    epsilon: float = 3.0
    delta: float = 1e-5
    noise_multiplier: float = 0.0
    unit: Unit = "record"
    adjacency: Adjacency = "replace_one"
    min_records: int = 0
    noise: Literal["server", "clients"] = "server"
    noise_source: NoiseSource = "os"
    report_shortened: bool = False
    outlier_multiple: float = math.inf

    def __post_init__(self) -> None:
        RobustConfig.__post_init__(self)
        multiple = self.outlier_multiple
        require(
            multiple == math.inf,
            "outlier_multiple",
            multiple,
            "inf in a private strategy: whose answer counts must not depend on other clients' data",
        )
        require(self.epsilon > 0, "epsilon", self.epsilon, "positive (inf is no privacy)")
        require(0 < self.delta < 1, "delta", self.delta, "above 0 and below 1")
        z = self.noise_multiplier
        require(0 <= z < math.inf, "noise_multiplier", z, "0 (from epsilon) or more, and finite")
        require(self.min_records >= 0, "min_records", self.min_records, "0 (found) or more")
        if self.min_records and self.unit == "client":
            raise ConfigError(
                f"min_records={self.min_records} has no effect with unit=client, whose noise does"
                " not depend on records; leave it out, or set unit=record"
            )
        num_averaged(self.rule, 3, self.num_byzantine)
        if self.noise == "clients" and not self.rule.is_mean:
            raise ConfigError(
                f"noise=clients adds up in the mean alone, not in aggregator={self.aggregator!r};"
                " set noise=server"
            )

    @property
    def is_private(self) -> bool:
        """Whether anything is claimed."""
        return self.epsilon < math.inf


@dataclass(frozen=True, slots=True)
class Spent:
    """What a private run has spent, and its last release: std of the noise, share of shortened.

    ledger, epsilon: of the problem at hand; before: what earlier problems have released to the same
    clients; epsilon_run: of all that, which the budget is for.
    """

    ledger: Ledger
    epsilon: float = 0.0
    noise_std: float = 0.0
    shortened: float | None = None
    before: Ledger = field(default_factory=Ledger.empty)
    epsilon_run: float = 0.0

    @property
    def whole(self) -> Ledger:
        """All releases of the run."""
        return self.before.joined(self.ledger)

    def without_noise(self) -> "Spent":
        """Return what a release without noise makes of it."""
        return replace(self, epsilon=math.inf, epsilon_run=math.inf)


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
        raise PrivacySpent
    return replace(now, epsilon=own, epsilon_run=whole)


def carried_on(fresh: StateT, before: Spent | None) -> StateT:
    """Return the first state of a problem, with all that was spent on the problems before it.

    The same clients answer, so everything that the run releases counts together.
    """
    if before is None:
        return fresh
    own = fresh.privacy  # type: ignore[attr-defined]
    spent = replace(own, before=before.whole, epsilon_run=before.epsilon_run)
    return replace(fresh, privacy=spent)  # type: ignore[type-var]


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
    config: PrivacyConfig,
    plan: RoundPlan,
    *,
    purpose: str = "release",
) -> Published:
    """Return the aggregate of clipped vectors with noise.

    The server clips again what clients say that they have clipped, for one of them may lie. Where
    clients add the noise, all of the cohort must answer: raises TooFewAnswers.
    """
    k = num_averaged(config.rule, len(vectors), config.num_byzantine)
    if config.noise == "clients":
        if len(vectors) < len(plan.cohort):
            raise TooFewAnswers(
                f"round {plan.round_index}: {len(vectors)} of {len(plan.cohort)} clients answered,"
                " and noise=clients is enough only when all do"
            )
        return Published(aggregate(vectors, config, plan), release.std(config, k))
    clipped = clip_rows(vectors.double(), release.clip_norm)
    mean = aggregate(clipped.sums, config, plan, purpose=purpose)  # or too few, before k is used
    std = release.std(config, k)
    where = (purpose, plan.problem, plan.round_index)
    noise = gaussian_noise(len(mean), std, config.noise_source, plan.seed, *where)
    shortened = float(clipped.shortened.mean()) if config.report_shortened else None
    return Published((mean + noise).to(vectors.dtype), std, shortened)


def share_shortened(told: Float[Tensor, "n 1"] | None) -> float | None:
    """Return the share of shortened vectors, where clients report it."""
    return None if told is None or not len(told) else float(told.mean())
