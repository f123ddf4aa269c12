"""Settings of FZooS in all its variants."""

from typing import ClassVar, Literal

from fedzo.config import require
from fedzo.parts import composed, part
from fedzo.used_with import UsedWith, one_of
from strategies.core.robust import RobustConfig
from strategies.core.rounds import RoundConfig
from strategies.core.step_config import FallingConfig
from strategies.surrogate.slope_config import SlopeConfig

Variant = Literal["improved", "on_client", "paper", "official"]

_SLOPES = one_of("variant", "improved", "on_client")
_LOCAL = one_of("variant", "on_client", "paper", "official")
_IMPROVED = one_of("variant", "improved")
_PUBLISHED = one_of("variant", "paper", "official")


@composed
class FZooSConfig:
    """Settings of FZooS.

    variant: "improved" (strategies.surrogate.fzoos_improved); "on_client", the same without values
    leaving the clients (strategies.surrogate.fzoos_on_client); "paper" or "official"
    (strategies.surrogate.fzoos_paper).

    slopes: of improved, and in part of on_client (num_directions, probe_radius, initial_step,
    kernel, max_rows).
    With an aggregator other than the mean, directions are always shared.
    on_client, paper, official: local_steps and local_lr (Adam) of each client.
    paper, official: one_exchange: send weights with the update, no queries around the server's x.
    """

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    variant: Variant = "improved"
    slopes: SlopeConfig = part(SlopeConfig)
    local: FallingConfig = part(FallingConfig)
    one_exchange: bool = False
    USED_WITH: ClassVar[UsedWith] = {
        **dict.fromkeys(
            ("num_directions", "probe_radius", "initial_step", "kernel", "max_rows"), _SLOPES
        ),
        **dict.fromkeys(("max_step", "min_step", "step_rule", "line_search"), _IMPROVED),
        **dict.fromkeys(("lengthscale", "curvature", "design"), _IMPROVED),
        **dict.fromkeys(
            ("shared_every", "private_gain"),
            (_IMPROVED, one_of("design", "auto"), one_of("aggregator", "mean")),
        ),
        **dict.fromkeys(("local_steps", "local_lr", "lr_period"), _LOCAL),
        "one_exchange": _PUBLISHED,
        "client.*": _PUBLISHED,
    }

    def __post_init__(self) -> None:
        if not self.robust.rule.is_mean:
            require(
                self.variant != "improved" or self.slopes.design != "private",
                "design",
                self.slopes.design,
                f"auto or shared with aggregator={self.robust.aggregator!r}: a robust rule compares"
                " what clients answer at the same points",
            )
