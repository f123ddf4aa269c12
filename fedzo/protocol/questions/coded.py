"""Coded gradients: machines that each work on the data of several clients.

    CodedTasks:  points x_1 .. x_J [J, d]; of each machine r tasks: a point, shards j and what each
                 counts  ->  sums [n, r, d] of counts times the gradients of the shards at the point

A shard is a client's data, which the machine must have: this is for data centers, and for
simulations. Cost: a gradient for each shard of each task. Sent: J d floats down, r d up, these in
float64.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from fedzo.config import check_types
from fedzo.protocol.question import Answer, Cost, Question, Shapes, WorkedOn, each, held

NO_SHARD = -1
"""What fills rows of shards that are shorter than others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedConfig:
    """Settings of the rule `coded`: there are none."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedSums(Answer):
    """What each task of a machine has come to; zeros for a task that is none."""

    sums: Float64[Tensor, "n r d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedTasks(Question[CodedSums]):
    """Sums of gradients; rows of shards are filled up with NO_SHARD."""

    kind: ClassVar[str] = "query.coded"
    answer: ClassVar[type[Answer]] = CodedSums

    points: Float[Tensor, "j d"]
    point: Int[Tensor, "n r"] = each()
    shards: Int[Tensor, "n r k"] = each()
    counts: Float64[Tensor, "n r k"] = each()

    def shapes(self) -> Mapping[str, Shapes]:
        return {"sums": [(self.point.shape[1], self.points.shape[1])]}

    def cost(self) -> Cost:
        work = int((self.shards != NO_SHARD).flatten(1).sum(1).max()) if len(self.shards) else 0
        return Cost(gradients=work, floats=max(1, work) * held(self.points.shape[1], 0))

    def works_on(self, client_ids: Sequence[int]) -> WorkedOn:
        used = (self.shards != NO_SHARD).nonzero()
        shards = self.shards[used[:, 0], used[:, 1], used[:, 2]]
        return WorkedOn(clients=shards.tolist(), owners=used[:, 0].tolist())

    def places(self) -> Int[Tensor, "m 3"]:
        """Return machine, task and place of every shard that is worked on, in their order."""
        found: Tensor = (self.shards != NO_SHARD).nonzero()
        return found.to(torch.int64)
