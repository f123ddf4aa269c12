"""What a private strategy can be told."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from fedzo.config import check_types, require
from fedzo.errors import ConfigError
from fedzo.parts import composed, part
from fedzo.privacy.gaussian import Adjacency, NoiseSource, Unit, num_averaged
from fedzo.used_with import UsedWith, above, any_of, is_finite, one_of
from strategies.core.robust import RobustConfig
from strategies.core.rounds import RoundConfig

_MOST = 1e9
NOISY = any_of(is_finite("epsilon"), above("noise_multiplier", 0))
"""What there must be noise for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig:
    """What a private strategy can be told of its privacy.

    epsilon, delta: the budget. noise_multiplier: std over sensitivity of every release; 0 makes it
    as small as the budget allows for the run's rounds, none for epsilon=inf. unit: whose data are
    protected, a record's or all of a client's. adjacency: whether neighboring data sets differ by
    one replaced, or one whose vector is zero instead; numbers of records are public. min_records:
    that a client must have to take part, for which the noise of unit=record is made; 0 finds a
    number among what clients say (strategies.private.record_bounds). noise: who adds it: the
    server, once, or each client its share of it, so that nobody sees a mean without it.
    noise_source: os, the operating system's entropy, or stream, which repeats with the seed and is
    for simulations alone. report_shortened: whether the share of clipped vectors is written to the
    history; it is not private.
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
    USED_WITH: ClassVar[UsedWith] = {
        "delta": NOISY,
        "adjacency": NOISY,
        "noise_source": NOISY,
        "min_records": one_of("unit", "record"),
    }

    def __post_init__(self) -> None:
        check_types(self)
        fits = 0 < self.epsilon <= _MOST or self.epsilon == math.inf
        allowed = f"positive and at most {_MOST:g} (inf is no privacy)"
        require(fits, "epsilon", self.epsilon, allowed)
        require(0 < self.delta < 1, "delta", self.delta, "above 0 and below 1")
        z = self.noise_multiplier
        require(0 <= z < math.inf, "noise_multiplier", z, "0 (from epsilon) or more, and finite")
        require(self.min_records >= 0, "min_records", self.min_records, "0 (found) or more")
        if self.min_records and self.unit == "client":
            raise ConfigError(
                f"min_records={self.min_records} has no effect with unit=client, whose noise does"
                " not depend on records; leave it out, or set unit=record"
            )

    @property
    def samples_from(self) -> NoiseSource:
        """Where samples of records are drawn: as noise is; without any, nothing is secret."""
        return self.noise_source if self.claims or self.noise_multiplier else "stream"

    @property
    def claims(self) -> bool:
        """Whether anything is claimed."""
        return self.epsilon < math.inf


@composed
class PrivateConfig:
    """Settings of rounds, of malicious clients, and of privacy.

    outlier_multiple: inf, because who is left out would depend on data.
    """

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig, outlier_multiple=math.inf)
    privacy: PrivacyConfig = part(PrivacyConfig)

    def __post_init__(self) -> None:
        multiple, rule = self.robust.outlier_multiple, self.robust.rule
        require(
            multiple == math.inf,
            "outlier_multiple",
            multiple,
            "inf in a private strategy: whose answer counts must not depend on other clients' data",
        )
        num_averaged(rule, 3, self.robust.num_byzantine)
        if self.privacy.noise == "clients" and not rule.is_mean:
            raise ConfigError(
                "noise=clients adds up in the mean alone, not in"
                f" aggregator={self.robust.aggregator!r}; set noise=server"
            )


def require_client_level(privacy: PrivacyConfig, clip_norm: float, why: str) -> None:
    """Raise ConfigError where whole clients are not what the server clips and protects."""
    require(0 < clip_norm < math.inf, "clip_norm", clip_norm, "positive and finite")
    unit, noise = privacy.unit, privacy.noise
    if unit != "client" or noise != "server":
        raise ConfigError(f"unit={unit} and noise={noise} must be client and server here: {why}")
