"""What private methods ask: how many records, clipped means of gradients, and private local steps.

    Records:      how many records the client has                                  [n, 1]
    Clipped:      x (, previous)  ->  fresh [n, k], change [n, k] (, shortened [n, 1])
    ClippedWalk:  x, direction v  ->  update [n, d]

k is d, or m slopes along shared directions with `gradient=zeroth_order`. Formulas, cost and noise:
clients.private.gradient_difference, clients.private.clipped_walk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from fedzo.config import check_types, require
from fedzo.estimation.schemes import SCHEMES, SharedName
from fedzo.objectives.oracle import BoundsPolicy
from fedzo.privacy.clipping import MAX_FLOATS
from fedzo.privacy.gaussian import NoiseSource, Unit
from fedzo.protocol.question import Answer, Cost, Policies, Question, Shapes, each, held
from fedzo.protocol.questions.training import Trained
from fedzo.used_with import UsedWith, one_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedConfig:
    """Settings of the rule `gradient_difference`.

    gradient: exact, or zeroth_order: made of the records' losses by `estimator`. num_directions: a
    question, at most the dimension of x. mu: smoothing radius, in units of x. max_floats: that
    records' gradients, or what makes them, may take at once; 4 bytes each in float32.
    """

    gradient: Literal["exact", "zeroth_order"] = "exact"
    estimator: SharedName = "central"
    num_directions: int = 20
    mu: float = 0.01
    max_floats: int = MAX_FLOATS
    out_of_bounds: BoundsPolicy = "clip"
    USED_WITH: ClassVar[UsedWith] = {
        **dict.fromkeys(("estimator", "num_directions", "mu"), one_of("gradient", "zeroth_order")),
        "max_floats": (one_of("gradient", "exact"), one_of("strategy.unit", "record")),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < float("inf"), "mu", self.mu, "a positive number")
        require(self.max_floats >= 1, "max_floats", self.max_floats, "at least 1")

    @property
    def exact(self) -> bool:
        """Whether gradients are autograd's."""
        return self.gradient == "exact"

    @property
    def policies(self) -> Policies:
        return Policies(out_of_bounds=self.out_of_bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsTold(Answer):
    """Numbers of records."""

    records: Float[Tensor, "n 1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records(Question[RecordsTold]):
    """How many records each client has."""

    kind: ClassVar[str] = "query.records"
    introduces: ClassVar[bool] = True
    answer: ClassVar[type[Answer]] = RecordsTold

    def shapes(self) -> Mapping[str, Shapes]:
        return {"records": [(1,)]}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedMeans(Answer):
    """Clipped means at x, of changes since the point before, and the share that was shortened."""

    fresh: Float[Tensor, "n k"] | None = None
    change: Float[Tensor, "n k"] | None = None
    shortened: Float[Tensor, "n 1"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipped(Question[ClippedMeans]):
    """Clipped means of gradients (`fresh`), of changes since a previous point, or both.

    clip_norm, noise_std: of gradients; change_clip, change_std: of changes: clip norm, and the
    client's share of the noise. unit: whose data are clipped. report: whether the share of
    shortened records is told, for simulations. compare: whether records' losses must first be shown
    to average to the objective; what that takes depends on the client, and `cost` leaves it out.
    """

    kind: ClassVar[str] = "query.clipped"
    answer: ClassVar[type[Answer]] = ClippedMeans

    x: Float[Tensor, " d"]
    previous: Float[Tensor, " d"] | None = None
    first_row: Int[Tensor, " n"] | None = each(None)
    settings: ClippedConfig
    fresh: bool
    clip_norm: float = 0.0
    noise_std: float = 0.0
    change_clip: float = 0.0
    change_std: float = 0.0
    unit: Unit
    noise_source: NoiseSource
    report: bool
    compare: bool = False

    @property
    def directions(self) -> int:
        """How many directions a slope is asked along."""
        return min(self.settings.num_directions, len(self.x))

    @property
    def due(self) -> list[str]:
        """The means that are told."""
        changed = ["change"] if self.previous is not None else []
        return [*changed, *(["fresh"] if self.fresh else [])]

    def shapes(self) -> Mapping[str, Shapes]:
        whole: Shapes = [(len(self.x),)]
        told = whole if self.settings.exact else [(self.directions,), (0,)]
        more: dict[str, Shapes] = {"shortened": [(1,)]} if self.report else {}
        return {**dict.fromkeys(self.due, told), **more}

    def cost(self) -> Cost:
        points = 1 if self.previous is None else 2
        if not self.settings.exact:
            queries = points * SCHEMES[self.settings.estimator].num_queries(self.directions)
            return Cost(queries=queries, floats=held(len(self.x), self.directions))
        if self.unit == "client":
            return Cost(gradients=points, floats=held(len(self.x), 0))
        gradients = 2 * (points - 1) + self.fresh
        return Cost(gradients=gradients, floats=held(len(self.x), 0))

    @property
    def policies(self) -> Policies:
        return self.settings.policies


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedWalk(Question[Trained]):
    """Local steps along v, corrected by private changes of minibatches' gradients.

    local_batch: records a step; local_clip: C3; local_noise: z, in sensitivities of a step.
    """

    kind: ClassVar[str] = "train.clipped_walk"
    answer: ClassVar[type[Answer]] = Trained

    x: Float[Tensor, " d"]
    direction: Float[Tensor, " d"]
    settings: ClippedConfig
    local_steps: int
    local_lr: float
    local_batch: int
    local_clip: float
    local_noise: float
    noise_source: NoiseSource

    def shapes(self) -> Mapping[str, Shapes]:
        return {"update": [tuple(self.x.shape)]}

    def cost(self) -> Cost:
        return Cost(gradients=2 * (self.local_steps - 1), floats=held(len(self.x), 0))

    @property
    def policies(self) -> Policies:
        return self.settings.policies
