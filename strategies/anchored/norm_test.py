"""How many examples, directions and clients anchors need, by the variance that they report.

    within  = mean_i V_i,  V_i the variance of one example's gradient (or one direction's estimate)
    between = mean_i |v_i - v_mean|^2 n / (n - 1) - within / b       law of total variance
    g2      = |v|^2 - (within / b + between (1 - n / N)) / n         unbiased for |grad F|^2
    b       <- max(b, ceil(within / (n eta^2 g2)))                   examples (directions) an anchor
    cohort  <- max(cohort, ceil(between / (eta^2 g2)))               clients a round

The norm test of Lau, Liu & Kolar, "AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient
Methods", arXiv 2402.11215, whose distributed form holds both variances in one. What grows never
shrinks: a batch up to all examples, directions up to the dimension, a cohort up to everybody.
Shapes: v, v_i [d]. Cost: an anchor with a finite batch differentiates the same examples in parts;
one that uses all draws 32 more for the estimate. Sent: 1 float up an anchor. With a robust rule
`within` is the median, and `between` is that of the n - f gradients nearest to the aggregate.

v is a mean over n clients, whose sampling errors average out: its variance is within / (n b). Where
the noise hides the gradient (g2 <= 0), what is tested doubles.

Differs from the paper: the client half of the variance drives what a client does, the other half
how many are asked; `between` has the sampling error of the v_i taken out, and |v|^2 its bias.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from fedzo.config import require_nonnegative
from fedzo.errors import ConfigError
from fedzo.parts import composed, part
from fedzo.protocol.questions.anchored import AnchorConfig, Anchored
from fedzo.used_with import UsedWith, above, below
from strategies.core.asking import Heard
from strategies.core.robust import RobustConfig, agree
from strategies.core.rounds import RoundConfig, RoundPlan, TooFewAnswers

MICRO_BATCHES = 8
"""Parts of a batch whose gradients tell its variance."""


@composed
class NormTestConfig:
    """Settings of strategies with anchors that adapt.

    norm_test: eta, the standard error of a gradient that is borne, as a share of its norm; 0 does
    not test. adapt_cohort: whether the cohort grows too.
    """

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    norm_test: float = 0.0
    adapt_cohort: bool = False
    USED_WITH: ClassVar[UsedWith] = {
        "adapt_cohort": (above("norm_test", 0), below("participation", 1)),
    }

    def __post_init__(self) -> None:
        require_nonnegative("norm_test", self.norm_test)
        if self.adapt_cohort and not self.norm_test:
            raise ConfigError("adapt_cohort=true needs norm_test above 0, which it adapts to")
        liars = self.robust.num_byzantine
        if self.adapt_cohort and liars:
            raise ConfigError(
                f"adapt_cohort=true changes how many of a cohort may lie, and num_byzantine={liars}"
                " would not follow; set one of them to its default"
            )


@dataclass(frozen=True, slots=True)
class Control:
    """What was measured last, and what follows; cohort_size 0 is what participation says.

    key, size: the client's setting that adapts and its value, 0 for all examples.
    """

    active: bool
    key: str
    size: int
    cohort_size: int = 0
    within: float = math.nan
    between: float = math.nan

    @property
    def micro_batches(self) -> int:
        """Parts of a batch of which anchors tell the variance; 0 where nothing is tested."""
        return MICRO_BATCHES if self.active else 0

    def settings(self, client: AnchorConfig) -> AnchorConfig:
        """Return what clients are told instead of their own settings."""
        changed: dict[str, Any] = {self.key: self.size} if self.active else {}
        return replace(client, **changed)

    @property
    def report(self) -> Mapping[str, float]:
        """Return what the history says."""
        if not self.active:
            return {}
        sizes = {self.key: float(self.size), "cohort_size": float(self.cohort_size)}
        if math.isnan(self.within):
            return sizes
        return {"within_variance": self.within, "between_variance": self.between, **sizes}


@dataclass(frozen=True, slots=True)
class Adapting:
    """A state of a method with anchors: the global x, and what was measured of them."""

    x: Float[Tensor, " d"]
    control: Control

    @property
    def cohort_size(self) -> int:
        """How many clients the next round should ask; 0 as many as participation says."""
        return self.control.cohort_size

    @property
    def report(self) -> Mapping[str, float]:
        """What has been measured of the anchors' gradients."""
        return self.control.report


def first_control(config: NormTestConfig, client: AnchorConfig) -> Control:
    """Return the control before the first anchor, from the clients' own settings."""
    exact = client.exact
    key = "anchor_batch_size" if exact else "anchor_directions"
    size = client.anchor_batch_size if exact else client.anchor_directions
    return Control(config.norm_test > 0, key, _in_eights(size) if exact else size)


def renewed(
    control: Control,
    config: NormTestConfig,
    plan: RoundPlan,
    heard: Heard[Anchored],
    gradients: Float[Tensor, "n d"],
    mean: Float[Tensor, " d"],
) -> Control:
    """Return the control after a round's anchors; `mean` is v."""
    said = heard.said.variance
    if not control.active or said is None or not said.numel():
        return control
    dim = len(mean)
    most = dim if control.key == "anchor_directions" else _most_examples(heard)
    size = min(control.size, most)
    sampled = 0.0 if control.size == 0 or size == most else 1 / size
    said = said.flatten().clamp(min=0)
    within = float(said.mean() if config.robust.rule.is_mean else said.nanmedian())
    try:
        gradients, _ = agree(gradients, config.robust, plan, purpose="variance")
    except TooFewAnswers:
        return control
    spread = float((gradients - gradients.mean(dim=0)).square().sum()) / max(1, len(gradients) - 1)
    if not (math.isfinite(within) and math.isfinite(spread)):
        return control
    between = max(0.0, spread - within * sampled)
    n, everybody = len(gradients), plan.num_clients
    bias = (within * sampled + between * max(0.0, 1 - n / everybody)) / n
    borne = config.norm_test**2 * max(0.0, float(mean.square().sum()) - bias)
    cohort = control.cohort_size or len(plan.cohort)
    if config.adapt_cohort:
        cohort = max(cohort, _needed(between, borne, cohort, everybody))
    if control.size:
        size = max(size, _needed(within / n, borne, size, most))
        if control.key == "anchor_batch_size":
            size = 0 if size >= most else _in_eights(size)
    return replace(control, size=size, cohort_size=cohort, within=within, between=between)


def _needed(variance: float, borne: float, now: int, most: int) -> int:
    """Return how many bring the variance of their mean below what is borne.

    Twice as many as now where the gradient is lost in the noise.
    """
    if variance <= 0:
        return 1
    if borne <= 0:
        return min(2 * now, most)
    return most if variance >= borne * most else max(1, math.ceil(variance / borne))


def _in_eights(size: int) -> int:
    """Return the next size that can be taken in equal parts."""
    return -(-size // MICRO_BATCHES) * MICRO_BATCHES


def _most_examples(heard: Heard[Anchored]) -> int:
    return max(heard.counts.get("num_examples", {}).values(), default=1)
