"""Local steps from x.

    LocalSteps:        x (, c)  ->  update x_K - x [n, d] (, control c_i [n, d])
    GradientEstimate:  x        ->  gradient [n, d], estimated from values

Cost: a step one gradient, or the queries of an estimate. Sent: d floats down, 2 d with a control
variate c; d up, 2 d where c_i is renewed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from fedzo.protocol.question import Answer, Cost, Policies, Question, Shapes
from fedzo.protocol.questions.training_config import (
    FirstOrderConfig,
    MomentumConfig,
    TrainingConfig,
    ZerothOrderConfig,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained(Answer):
    """How far the local steps have led, and the new control variate where one was asked for."""

    update: Float[Tensor, "n d"]
    control: Float[Tensor, "n d"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSteps(Question[Trained]):
    """Local steps that all begin at x.

    proximal_weight: that of FedProx. control: the mean control variate of SCAFFOLD; renew_control:
    whether clients' own ones become the mean of their uncorrected gradients, and are sent.
    """

    answer: ClassVar[type[Answer]] = Trained
    vectors_up: ClassVar[tuple[str, ...]] = ("update", "control")
    replaced: ClassVar[tuple[str, ...]] = ("control",)
    vectors_down: ClassVar[tuple[str, ...]] = ("x", "control")

    x: Float[Tensor, " d"]
    control: Float[Tensor, " d"] | None = None
    settings: TrainingConfig
    local_steps: int
    local_lr: float
    proximal_weight: float = 0.0
    renew_control: bool = False

    def shapes(self) -> Mapping[str, Shapes]:
        told = ("update", "control") if self.renew_control else ("update",)
        return {name: [tuple(self.x.shape)] for name in told}

    def cost(self) -> Cost:
        return self.settings.cost(len(self.x), self.local_steps)

    @property
    def policies(self) -> Policies:
        return self.settings.policies


@dataclass(frozen=True, slots=True, kw_only=True)
class ZerothOrderSteps(LocalSteps):
    """Steps along gradients that are estimated from values (clients.averaging.zeroth_order)."""

    kind: ClassVar[str] = "train.zeroth_order"
    settings: ZerothOrderConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstOrderSteps(LocalSteps):
    """Steps along exact gradients (clients.averaging.first_order)."""

    kind: ClassVar[str] = "train.first_order"
    settings: FirstOrderConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentumSteps(LocalSteps):
    """Steps along a momentum that clients keep (clients.averaging.momentum)."""

    kind: ClassVar[str] = "train.momentum"
    settings: MomentumConfig


_STEPS: Mapping[type, type[LocalSteps]] = {
    ZerothOrderConfig: ZerothOrderSteps,
    FirstOrderConfig: FirstOrderSteps,
    MomentumConfig: MomentumSteps,
}


def local_steps(settings: TrainingConfig, **told: Any) -> LocalSteps:
    """Return the question for local steps by the rule that these settings are of."""
    return _STEPS[type(settings)](settings=settings, **told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated(Answer):
    """A gradient of each client."""

    gradient: Float[Tensor, "n d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientEstimate(Question[Estimated]):
    """One estimate at x, which becomes the client's control variate; zero without a budget."""

    kind: ClassVar[str] = "query.gradient"
    answer: ClassVar[type[Answer]] = Estimated
    vectors_up: ClassVar[tuple[str, ...]] = ("gradient",)
    replaced: ClassVar[tuple[str, ...]] = ("gradient",)
    vectors_down: ClassVar[tuple[str, ...]] = ("x",)

    x: Float[Tensor, " d"]
    settings: ZerothOrderConfig

    def shapes(self) -> Mapping[str, Shapes]:
        return {"gradient": [tuple(self.x.shape)]}

    def cost(self) -> Cost:
        return self.settings.cost(len(self.x), 1)

    @property
    def policies(self) -> Policies:
        return self.settings.policies
