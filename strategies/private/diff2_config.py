"""The settings of DIFF2 and DP-GD."""

import math
from typing import ClassVar, Literal

from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.parts import composed, part
from fedzo.used_with import UsedWith, above, any_of, is_finite, one_of, where
from strategies.core.privacy_config import PrivateConfig

CHANGES = any_of(above("restart_period", 1), one_of("memory", "filter"))
CALIBRATED = (is_finite("epsilon"), where("noise_multiplier", lambda z: not z, "{}=0"))
WALKS = one_of("routine", "bvr_l_sgd")


@composed
class DIFF2Config:
    """Settings of DIFF2.

    restart_period: T. memory: stage is DIFF2; filter releases the gradient and its change in every
    round, weighed by strategies.private.gradient_filter, and has no use for T. clip_norm: C1, of a
    gradient; difference_clip: C2, of a change, in units of 1 / |dx|. calibration: the paper's
    noise, or no more than needed (tight); restart_share: of the budget mu^2, for gradients, where
    it is tight. server_lr, lr_decay, server_momentum: the step. routine: gd, or bvr_l_sgd, in which
    one client in turn walks local_steps with local_lr, on local_batch records a step, changes
    clipped at local_clip (C3) |dy|; local_share: of the budget.
    """

    base: PrivateConfig = part(PrivateConfig)
    restart_period: int = 20
    memory: Literal["stage", "filter"] = "stage"
    clip_norm: float = 1.0
    difference_clip: float = 3.0
    calibration: Literal["tight", "paper"] = "tight"
    restart_share: float = 0.8
    server_lr: float = 0.25
    lr_decay: Literal["constant", "linear"] = "constant"
    server_momentum: float = 0.0
    routine: Literal["gd", "bvr_l_sgd"] = "gd"
    local_steps: int = 5
    local_lr: float = 0.05
    local_batch: int = 100
    local_clip: float = 3.0
    local_share: float = 0.1
    USED_WITH: ClassVar[UsedWith] = {
        "restart_period": one_of("memory", "stage"),
        "difference_clip": CHANGES,
        "calibration": CALIBRATED,
        "restart_share": (one_of("calibration", "tight"), CHANGES),
        "local_share": (*CALIBRATED, WALKS),
        **dict.fromkeys(("server_lr", "lr_decay", "server_momentum"), one_of("routine", "gd")),
        **dict.fromkeys(("local_steps", "local_lr"), WALKS),
        **dict.fromkeys(("local_batch", "local_clip"), (WALKS, above("local_steps", 1))),
    }

    def __post_init__(self) -> None:
        for name in ("restart_period", "local_steps", "local_batch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("clip_norm", "difference_clip", "local_clip"):
            value = getattr(self, name)
            finite = value < math.inf or not self.base.privacy.claims
            require(value > 0 and finite, name, value, "positive, and finite unless epsilon=inf")
        for name in ("server_lr", "local_lr"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, value, "0 or more, and finite")
        for name in ("restart_share", "local_share"):
            value = getattr(self, name)
            require(0 < value < 1, name, value, "above 0 and below 1")
        momentum = self.server_momentum
        require(0 <= momentum < 1, "server_momentum", momentum, "at least 0 and below 1")
        require(
            self.base.rounds.participation == 1,
            "participation",
            self.base.rounds.participation,
            "1: the changes of gradients need everybody's in every round",
        )
        self._require_combinations()

    def _require_combinations(self) -> None:
        unit, adjacency = self.base.privacy.unit, self.base.privacy.adjacency
        plain = unit == "record" and adjacency == "replace_one"
        if self.calibration == "paper" and not (plain and self.routine == "gd"):
            raise ConfigError(
                "calibration=paper is for unit=record, adjacency=replace_one and routine=gd; set"
                " calibration=tight"
            )
        if self.routine == "bvr_l_sgd" and not plain:
            raise ConfigError(
                f"routine=bvr_l_sgd has no accounting for unit={unit}, adjacency={adjacency}; set"
                " them to record and replace_one"
            )
