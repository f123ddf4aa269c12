"""Gradients at anchors, their changes, and local steps along a gradient (FedAMD and its kin).

    Anchor:      x               ->  gradient [n, d] of a large batch (, variance [n, 1])
    Walk:        x               ->  mean gradient along local steps [n, d]
    Difference:  x, previous     ->  change of the gradient [n, d], of one batch
    Miner:       x, direction v  ->  update [n, d] of steps along v, corrected by own differences

With `gradient=zeroth_order`, anchors and differences tell the slopes along m directions of each
client's own instead, and miners the (K - 1) m slopes of their steps where these are fewer than d:
the server makes vectors of them (`gradients`, `updates`). Cost and floats: clients.anchored.anchor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.config import require
from fedzo.estimation.bases import Along, Blocks
from fedzo.estimation.schemes import SCHEMES
from fedzo.protocol.question import (
    Answer,
    AnswerT,
    Cost,
    Policies,
    Question,
    Shapes,
    each,
    held,
)
from fedzo.protocol.questions.training_config import DRAWN, ESTIMATED, GradientConfig
from fedzo.used_with import UsedWith, above, any_of

BESIDE = 4
"""Examples of each part that an anchor draws beside all its examples, to tell a variance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorConfig(GradientConfig):
    """Settings of the rule `anchor`.

    batch_size: of a miner's step; anchor_batch_size: of an anchor; 0 takes all examples.
    num_directions: of a miner's step; anchor_directions: of an anchor; at most the dimension of x.
    """

    anchor_batch_size: int = 0
    anchor_directions: int = 100
    USED_WITH: ClassVar[UsedWith] = {
        "batch_size": above("strategy.local_steps", 1),
        "sampling": any_of(above("batch_size", 0), above("anchor_batch_size", 0)),
        "num_directions": (ESTIMATED, DRAWN, above("strategy.local_steps", 1)),
        "anchor_directions": (ESTIMATED, DRAWN),
    }

    def __post_init__(self) -> None:
        GradientConfig.__post_init__(self)
        size = self.anchor_batch_size
        require(size >= 0, "anchor_batch_size", size, "0 (all examples) or more")
        count = self.anchor_directions
        require(count >= 1, "anchor_directions", count, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored(Answer):
    """A gradient of each client, or the slopes that stand for it, and the variance within it."""

    gradient: Float[Tensor, "n d"] | None = None
    slopes: Float[Tensor, "n m"] | None = None
    variance: Float[Tensor, "n v"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchoredQuestion(Question[AnswerT]):
    """What all of the family have: the point, the rows of each client's directions, settings.

    first_row: where its directions begin, for `gradient=zeroth_order`.
    """

    lane: ClassVar[int]
    """Which of up to four purposes the directions are for: no two share a basis."""

    x: Float[Tensor, " d"]
    first_row: Int[Tensor, " n"] | None = each(None)
    settings: AnchorConfig
    local_steps: int
    local_lr: float

    @property
    def directions(self) -> int:
        """How many directions a gradient is made of, at most the dimension."""
        return self.settings.anchor_directions

    @property
    def policies(self) -> Policies:
        return self.settings.policies

    def blocks(self, *, seed: int, problem: int) -> Blocks:
        """Return the blocks of directions of all clients."""
        dim, scheme = len(self.x), SCHEMES[self.settings.estimator]
        return Blocks(dim, dim if scheme.axes else self.directions, seed, problem)

    def along(self, name: str, *, seed: int, problem: int) -> Along | None:
        if name != "slopes" or self.first_row is None:
            return None
        return Along(self.blocks(seed=seed, problem=problem), self.first_row)

    def gradients(
        self, said: Anchored, rows: Int[Tensor, " n"], *, seed: int, problem: int
    ) -> Float[Tensor, "_ d"]:
        """Return the gradients that the clients at these positions have told.

        Nobody's where the budget was too small.
        """
        told = said.gradient if said.slopes is None else said.slopes
        assert told is not None
        if not told.shape[1]:
            return told.new_empty(0, len(self.x))
        along = self.along("slopes", seed=seed, problem=problem)
        if said.slopes is None or along is None:
            return told
        return along.select(rows).vectors(told)[:, 0].to(self.x)

    def _estimates(self, count: int) -> Cost:
        """Return what so many gradients take, of which two are at hand at once."""
        if self.settings.exact:
            return Cost(gradients=count, floats=held(len(self.x), 0))
        m = self.blocks(seed=0, problem=0).size
        queries = count * SCHEMES[self.settings.estimator].num_queries(m)
        return Cost(queries=queries, floats=held(len(self.x), m))

    def _told(self, length: int) -> Mapping[str, Shapes]:
        """Return the shapes of a gradient, or of as many slopes, or of none for want of budget."""
        if self.settings.exact:
            return {"gradient": [(len(self.x),)]}
        return {"slopes": [(0,), (length,)]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor(AnchoredQuestion[Anchored]):
    """The gradient of a large batch; micro_batches: parts of it whose variance is told, 0 none."""

    kind: ClassVar[str] = "query.anchor"
    answer: ClassVar[type[Answer]] = Anchored
    lane: ClassVar[int] = 0
    vectors_up: ClassVar[tuple[str, ...]] = ("gradient",)
    replaced: ClassVar[tuple[str, ...]] = ("gradient",)
    vectors_down: ClassVar[tuple[str, ...]] = ("x",)

    micro_batches: int = 0

    @property
    def reports(self) -> bool:
        """Whether a variance is told."""
        return self.micro_batches > 1

    def shapes(self) -> Mapping[str, Shapes]:
        told = self._told(self.blocks(seed=0, problem=0).size)
        return {**told, "variance": [(1,), (0,)]} if self.reports else told

    def cost(self) -> Cost:
        if not (self.settings.exact and self.reports):
            return self._estimates(1)
        return self._estimates(self.micro_batches + (self.settings.anchor_batch_size == 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(AnchoredQuestion[Anchored]):
    """How the gradient of one large batch differs between x and the previous x."""

    kind: ClassVar[str] = "query.difference"
    answer: ClassVar[type[Answer]] = Anchored
    lane: ClassVar[int] = 1

    previous: Float[Tensor, " d"]

    def shapes(self) -> Mapping[str, Shapes]:
        return self._told(self.blocks(seed=0, problem=0).size)

    def cost(self) -> Cost:
        return self._estimates(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk(AnchoredQuestion[Anchored]):
    """The mean gradient along local steps; a vector always, for the steps have used many rows."""

    kind: ClassVar[str] = "query.walk"
    answer: ClassVar[type[Answer]] = Anchored
    lane: ClassVar[int] = 3
    vectors_up: ClassVar[tuple[str, ...]] = ("gradient",)
    replaced: ClassVar[tuple[str, ...]] = ("gradient",)
    vectors_down: ClassVar[tuple[str, ...]] = ("x",)

    def shapes(self) -> Mapping[str, Shapes]:
        whole: list[tuple[int, ...]] = [(len(self.x),)]
        return {"gradient": whole if self.settings.exact else [*whole, (0,)]}

    def cost(self) -> Cost:
        return self._estimates(self.local_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined(Answer):
    """How far a miner has come, or the slopes that it has corrected its direction by."""

    update: Float[Tensor, "n d"] | None = None
    slopes: Float[Tensor, "n k"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Miner(AnchoredQuestion[Mined]):
    """Local steps along a gradient; tells: the update, or the slopes that replay it."""

    kind: ClassVar[str] = "train.miner"
    answer: ClassVar[type[Answer]] = Mined
    lane: ClassVar[int] = 2
    vectors_up: ClassVar[tuple[str, ...]] = ("update",)
    vectors_down: ClassVar[tuple[str, ...]] = ("x", "direction")

    direction: Float[Tensor, " d"]
    tells: Literal["update", "slopes"] = "update"

    @property
    def directions(self) -> int:
        return self.settings.num_directions

    @property
    def is_free(self) -> bool:
        return self.local_steps == 1

    def shapes(self) -> Mapping[str, Shapes]:
        if self.tells == "update":
            return {"update": [(len(self.x),)]}
        size = self.blocks(seed=0, problem=0).size
        return {"slopes": [(size * count,) for count in range(self.local_steps)]}

    def cost(self) -> Cost:
        return self._estimates(2 * (self.local_steps - 1))

    def along(self, name: str, *, seed: int, problem: int) -> Along | None:
        if name != "slopes" or self.first_row is None:
            return None
        return Along(self.blocks(seed=seed, problem=problem), self.first_row, first_block=1)

    def updates(
        self, said: Mined, rows: Int[Tensor, " n"], *, seed: int, problem: int
    ) -> Float[Tensor, "n d"]:
        """Return the updates that the clients at these positions have told."""
        if said.slopes is None:
            assert said.update is not None
            return said.update
        if not said.slopes.shape[1]:
            return self.x.new_zeros(len(said.slopes), len(self.x))
        assert self.first_row is not None
        blocks, first = self.blocks(seed=seed, problem=problem), self.first_row[rows]
        return blocks.replay(said.slopes, first, self.direction, self.local_lr).to(self.x)


AnchoredT = TypeVar("AnchoredT", bound=AnchoredQuestion[Any])


def with_rows(
    question: AnchoredT, clients: Sequence[int], *, turn: int, seed: int, problem: int
) -> AnchoredT:
    """Return the question with rows of directions that are nobody else's; as it is where exact.

    turn: what makes them this round's, the number of rounds before it times that of clients.
    """
    if question.settings.exact:
        return question
    blocks = question.blocks(seed=seed, problem=problem)
    count = question.local_steps if isinstance(question, Miner | Walk) else 1
    owners = torch.as_tensor(clients, dtype=torch.int64) + turn
    rows = replace(question, first_row=blocks.first_rows(owners, count, lane=question.lane))
    if isinstance(rows, Miner) and 0 < blocks.size * (rows.local_steps - 1) < len(rows.x):
        return replace(rows, tells="slopes")
    return rows
