"""Peers that each have a model of their own (MoNNA, DADAO), and the server that relays.

    OwnModel:  (x [d])                               ->  model [n, d] after local steps from it
    Mix:       models [m, d], heard [n, m], own [n]  ->  model [n, d] made of what was heard
    PeerGradient: point [n, d]                       ->  gradient [n, d] at each node's own (DADAO)

A node begins at x where it has no model yet. A peer may tell every node something else: `lies`
[n, l, d], with the positions `liars` [n, l], then stand in for those rows of `models`. Cost: local
steps as clients.averaging.momentum says; mixing asks nothing. Sent: clients.peers.mixing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from fedzo.config import check_types
from fedzo.protocol.question import Answer, Cost, Policies, Question, Shapes, each, held, unsent
from fedzo.protocol.questions.training_config import MomentumConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Answer):
    """A model of each node; nothing, [n, 0], where it is not to be sent."""

    model: Float[Tensor, "n k"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnModel(Question[Model]):
    """Local steps from each node's own model; dim: of it, for the server to know."""

    kind: ClassVar[str] = "train.own_model"
    answer: ClassVar[type[Answer]] = Model

    x: Float[Tensor, " d"] | None = None
    settings: MomentumConfig
    local_steps: int
    local_lr: float
    dim: int = unsent(1)

    def shapes(self) -> Mapping[str, Shapes]:
        return {"model": [(self.dim,)]}

    def cost(self) -> Cost:
        return self.settings.cost(self.dim, self.local_steps)

    @property
    def policies(self) -> Policies:
        return self.settings.policies


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix(Question[Model]):
    """What each node makes of the models that it has heard; report: whether it says so."""

    kind: ClassVar[str] = "train.mix"
    answer: ClassVar[type[Answer]] = Model

    models: Float[Tensor, "m d"]
    heard: Integer[Tensor, "n m"] = each()
    own: Int[Tensor, " n"] = each()
    lies: Float[Tensor, "n l d"] | None = each(None)
    liars: Int[Tensor, "n l"] | None = each(None)
    aggregator: str
    num_byzantine: int
    report: bool

    def shapes(self) -> Mapping[str, Shapes]:
        return {"model": [(self.models.shape[1] if self.report else 0,)]}

    def told_by_liars(
        self, client_ids: Sequence[int], liars: frozenset[int], *, opposite: bool
    ) -> "Mix | None":
        ids = torch.full((len(self.models),), -1)
        ids[self.own] = torch.as_tensor(client_ids)
        lying = torch.tensor([client in liars for client in ids.tolist()], dtype=torch.bool)
        if not lying.any():
            return self
        heard = _hear(self.heard.bool(), self.own, lying).to(self.heard)
        if not opposite or lying.all():
            return replace(self, heard=heard)
        positions = lying.nonzero().flatten()
        known = ~lying & (ids >= 0)
        mean = self.models[known if known.any() else ~lying].mean(dim=0)
        mirrored = 2 * mean - self.models[positions]
        second = torch.arange(len(self.own)) % 2 == 1
        lies = [mirrored if other else self.models[positions] for other in second.tolist()]
        return replace(
            self,
            heard=heard,
            liars=positions.expand(len(self.own), -1).clone(),
            lies=torch.stack(lies),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """Settings of the rule `peer_gradient`: there are none."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerGradients(Answer):
    """Each node's gradient at its own point."""

    gradient: Float[Tensor, "n d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerGradient(Question[PeerGradients]):
    """The gradient of each node's objective at a point of its own."""

    kind: ClassVar[str] = "query.peer_gradient"
    answer: ClassVar[type[Answer]] = PeerGradients

    point: Float[Tensor, "n d"] = each()

    def shapes(self) -> Mapping[str, Shapes]:
        return {"gradient": [(self.point.shape[1],)]}

    def cost(self) -> Cost:
        return Cost(gradients=1, floats=held(self.point.shape[1], 0))


def _hear(
    heard: Bool[Tensor, "n m"], own: Int[Tensor, " n"], lying: Bool[Tensor, " m"]
) -> Bool[Tensor, "n m"]:
    """Return who hears whom when liars come first: for each one more, an honest one is late."""
    fresh = heard | lying
    excess = fresh.sum(dim=1) - heard.sum(dim=1)
    honest = heard & ~lying
    honest[torch.arange(len(own)), own] = False
    turn = honest.cumsum(dim=1)
    return fresh & ~(honest & (turn <= excess.unsqueeze(1)))
