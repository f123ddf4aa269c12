"""What methods of anchors and miners ask of their clients, and how they read the answers.

FedAMD, FedPAGE and BVR-L-SGD differ in whom they ask for what: gradients of large batches, their
changes, local steps along a gradient (fedzo.protocol.questions.anchored, clients.anchored.anchor).
Floats a client: anchors d down, d up; differences 2d down, d up; miners 2d down, d up.
Zeroth-order: anchors m up, miners (K - 1) m up where that is less than d.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.parts import composed, part
from fedzo.protocol.questions.anchored import (
    Anchor,
    AnchorConfig,
    Anchored,
    AnchoredQuestion,
    AnchoredT,
    Difference,
    Mined,
    Miner,
    Walk,
    with_rows,
)
from strategies.anchored.norm_test import Control, NormTestConfig
from strategies.core.asking import Heard
from strategies.core.rounds import RoundPlan
from strategies.core.step_config import FallingConfig, RateConfig


@composed
class MiningConfig:
    """Settings of methods with anchors, and with miners whose mean update the server follows."""

    base: NormTestConfig = part(NormTestConfig)
    local: FallingConfig = part(FallingConfig)
    rate: RateConfig = part(RateConfig)

    def ask(self, plan: RoundPlan, client: AnchorConfig, control: Control) -> "Anchoring":
        """Return the questions of a round."""
        return Anchoring(plan, client, control, self.local)


@dataclass(frozen=True, slots=True)
class Anchoring:
    """The questions of one round, with the settings of the clients, and how answers are read."""

    plan: RoundPlan
    client: AnchorConfig
    control: Control
    local: FallingConfig

    def anchors(self, x: Float[Tensor, " d"], clients: Sequence[int]) -> Anchor:
        """Return the question for the gradient of a large batch."""
        return self._made(
            Anchor(x=x, **self._told, micro_batches=self.control.micro_batches), clients
        )

    def walks(self, x: Float[Tensor, " d"], clients: Sequence[int]) -> Walk:
        """Return the question for the mean gradient along local steps."""
        return self._made(Walk(x=x, **self._told), clients)

    def difference(
        self, x: Float[Tensor, " d"], previous: Float[Tensor, " d"], clients: Sequence[int]
    ) -> Difference:
        """Return the question how that gradient has changed."""
        return self._made(Difference(x=x, previous=previous, **self._told), clients)

    def miners(
        self, x: Float[Tensor, " d"], gradient: Float[Tensor, " d"], clients: Sequence[int]
    ) -> Miner:
        """Return the question for local steps along a gradient; one step asks no objective."""
        return self._made(Miner(x=x, direction=gradient, **self._told), clients)

    def gradients(
        self, question: AnchoredQuestion[Anchored], clients: Sequence[int], heard: Heard[Anchored]
    ) -> Float[Tensor, "n d"]:
        """Return the gradients, or changes of them, that some of the clients have told."""
        return question.gradients(heard.said, _places(clients, heard), **self._key)

    def updates(
        self, question: Miner, clients: Sequence[int], heard: Heard[Mined]
    ) -> Float[Tensor, "n d"]:
        """Return the updates that some of the miners have told."""
        return question.updates(heard.said, _places(clients, heard), **self._key)

    @property
    def _told(self) -> dict[str, Any]:
        settings = self.control.settings(self.client)
        return {"settings": settings, **self.local.told(self.plan.round_index)}

    @property
    def _key(self) -> dict[str, int]:
        return {"seed": self.plan.seed, "problem": self.plan.problem}

    def _made(self, question: AnchoredT, clients: Sequence[int]) -> AnchoredT:
        turn = self.plan.round_index * self.plan.num_clients
        return with_rows(question, clients, turn=turn, **self._key)


def _places(clients: Sequence[int], heard: Heard[Any]) -> Int[Tensor, " n"]:
    """Return the positions, among those who were asked, of those who have answered."""
    place = {client: i for i, client in enumerate(clients)}
    return torch.tensor([place[client] for client in heard.clients], dtype=torch.int64)
