"""What methods of anchors and miners ask of their clients, and how they read the answers.

FedAMD, FedPAGE and BVR-L-SGD differ in whom they ask for what: gradients of large batches
(`query.anchor`), their changes (`query.difference`), local steps along a gradient (`train.miner`);
see clients.anchor. Floats a client: anchors d down, d up; differences 2d down, d up; miners 2d
down, d up. Zeroth-order: anchors m up, miners (K - 1) m up where that is less than d.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.bases import Blocks
from fedzo.config import Scalar, require
from fedzo.exchange import Exchange, Replies
from strategies.norm_test import NormTestConfig
from strategies.rounds import RoundPlan

DEFAULTS: Mapping[str, Scalar] = {
    "gradient": "exact",
    "num_directions": 20,
    "anchor_directions": 100,
    "mu": 0.01,
}
"""For strategies that are built without settings of their clients; those of AnchorConfig."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningConfig(NormTestConfig):
    """Settings of methods with miners: their local_steps and local_lr, and server_lr."""

    local_steps: int = 10
    local_lr: float = 0.01
    server_lr: float = 1.0

    def __post_init__(self) -> None:
        NormTestConfig.__post_init__(self)
        require(self.local_steps >= 1, "local_steps", self.local_steps, "at least 1")
        require(0 < self.local_lr < math.inf, "local_lr", self.local_lr, "positive and finite")
        require(0 < self.server_lr < math.inf, "server_lr", self.server_lr, "positive and finite")

    def ask(self, plan: RoundPlan, client: Mapping[str, Scalar]) -> "Anchoring":
        """Return the questions of a round."""
        return Anchoring(plan, client, self.local_steps, self.local_lr)


@dataclass(frozen=True, slots=True)
class Anchoring:
    """The questions of one round, with the settings of the clients."""

    plan: RoundPlan
    client: Mapping[str, Scalar] = field(default_factory=dict)
    local_steps: int = 1
    local_lr: float = 1.0

    def anchors(self, x: Float[Tensor, " d"], clients: Sequence[int]) -> Exchange:
        """Ask for the gradient of a large batch."""
        return self._question("query.anchor", clients, self._client, {"x": x}, expected=1)

    def walks(self, x: Float[Tensor, " d"], clients: Sequence[int]) -> Exchange:
        """Ask for the mean gradient along local steps."""
        steps = self.local_steps
        return self._question("query.walk", clients, self._client, {"x": x}, expected=steps)

    def difference(
        self, x: Float[Tensor, " d"], previous: Float[Tensor, " d"], clients: Sequence[int]
    ) -> Exchange:
        """Ask how that gradient has changed."""
        shared = {"x": x, "previous": previous}
        return self._question("query.difference", clients, self._client, shared, expected=1)

    def miners(
        self, x: Float[Tensor, " d"], gradient: Float[Tensor, " d"], clients: Sequence[int]
    ) -> Exchange:
        """Ask for local steps along a gradient; a single one needs nothing of the objective."""
        shared = {"x": x, "gradient": gradient}
        steps = self.local_steps
        return self._question("train.miner", clients, self._client, shared, expected=steps)

    def gradients(self, asked: Exchange, replies: Replies) -> Float[Tensor, "n d"]:
        """Return the gradients, or changes of them, that anchors have answered.

        Nobody's where the budget was too small.
        """
        if "slopes" not in asked.expects:
            told = replies.tensors["gradient"]
            return told if told.shape[1] else told.new_empty(0, len(asked.shared["x"]))
        slopes, x = replies.tensors["slopes"], asked.shared["x"]
        if not slopes.shape[1]:
            return x.new_empty(0, len(x))
        return self._blocks(asked).combine(slopes, _rows(asked, replies), 0).to(x)

    def updates(self, asked: Exchange, replies: Replies) -> Float[Tensor, "n d"]:
        """Return the updates that miners have answered."""
        if "slopes" not in asked.expects:
            return replies.tensors["update"]
        slopes, x, start = replies.tensors["slopes"], asked.shared["x"], asked.shared["gradient"]
        if not slopes.shape[1]:
            return x.new_zeros(len(slopes), len(x))
        rows = _rows(asked, replies)
        return self._blocks(asked).replay(slopes, rows, start, self.local_lr).to(x)

    @property
    def _client(self) -> dict[str, Scalar]:
        return {**DEFAULTS, **self.client}

    def _question(
        self,
        kind: str,
        clients: Sequence[int],
        client: Mapping[str, Scalar],
        shared: Mapping[str, Tensor],
        *,
        expected: int,
    ) -> Exchange:
        local: dict[str, Scalar] = {"local_steps": self.local_steps, "local_lr": self.local_lr}
        if kind == "train.miner" and self.local_steps == 1:
            local["free"] = True
        dim, mining = len(shared["x"]), kind == "train.miner"
        reported: dict[str, Sequence[tuple[int, ...]]] = {}
        if kind == "query.anchor" and client.get("micro_batches"):
            reported = {"variance": [(1,), (0,)]}
        if client["gradient"] == "exact":
            name = "update" if mining else "gradient"
            return Exchange(
                kind=kind,
                client_ids=clients,
                shared=shared,
                config={**client, **local},
                expects={name: [(dim,)], **reported},
            )
        blocks = self._blocks_of(kind, client, dim)
        owners = torch.as_tensor(clients) + self.plan.round_index * self.plan.num_clients
        lane = ("query.anchor", "query.difference", "train.miner", "query.walk").index(kind)
        lengths = [blocks.size * count for count in (range(expected) if mining else (0, 1))]
        short = kind != "query.walk" and (not mining or 0 < lengths[-1] < dim)
        whole = [(dim,)] if mining else [(dim,), (0,)]
        answer = "slopes" if short else "update" if mining else "gradient"
        return Exchange(
            kind=kind,
            client_ids=clients,
            shared=shared,
            per_client={"first_row": blocks.first_rows(owners, expected, lane=lane)},
            config={**client, **local, "answer": answer},
            expects={
                answer: [(length,) for length in lengths] if short else whole,
                **reported,
            },
        )

    def _blocks(self, asked: Exchange) -> Blocks:
        return self._blocks_of(asked.kind, asked.config, len(asked.shared["x"]))

    def _blocks_of(self, kind: str, client: Mapping[str, Scalar], dim: int) -> Blocks:
        key = "num_directions" if kind == "train.miner" else "anchor_directions"
        wanted = dim if client.get("estimator") == "coordinate" else int(client[key])
        return Blocks(dim, wanted, self.plan.seed, self.plan.problem)


def _rows(asked: Exchange, replies: Replies) -> Tensor:
    """Return the first rows of those who have answered."""
    place = {client: i for i, client in enumerate(asked.client_ids)}
    return asked.per_client["first_row"][[place[client] for client in replies.client_ids]]
