"""What FZooS asks of clients that keep surrogates of their own.

    SurrogateSteps:    weights w (, x)  ->  update [n, d] (, weights w_i [n, M])    as published
    SurrogateWeights:  x                ->  weights w_i [n, M]
    SlopeGradient:     x, first row     ->  gradient [n, d] of the surrogate, evidence [n, 3]
    CorrectedSteps:    gradient g       ->  update [n, d]                           on_client

x is left out where clients have it from the exchange before. Formulas and cost:
clients.surrogate.surrogate, clients.surrogate.local_slopes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from fedzo.config import check_types, require
from fedzo.protocol.question import Answer, Cost, Question, Shapes, each, held, unsent
from fedzo.protocol.questions.training import Trained
from fedzo.surrogates.kernels import KernelName
from fedzo.surrogates.slopes import SlopePrior
from fedzo.used_with import UsedWith, above, any_of, one_of, other_than

GammaName = Literal["inverse", "constant", "theory", "data"]
VariantName = Literal["paper", "official"]
LENGTHSCALES = 3
"""Lengthscales whose evidence clients report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateConfig:
    """Settings of the rule `surrogate`; all but on_failure are of FZooS's paper and official.

    kernel: "auto" is what the variant says. lengthscale: of another kernel, 0 fits it. max_points:
    nearest queries of the local surrogate; capacity: queries that a client keeps. num_features,
    feature_lengthscale, feature_points: the transferable surrogate. active_*, anchor_*: queries and
    candidates around each local x and around the server's, active_radius in units of x.
    on_failure: whether a client "fail"s where its code raises, or is asked again ("retry").
    """

    kernel: Literal["auto"] | KernelName = "auto"
    lengthscale: float = 0.0
    max_points: int = 150
    capacity: int = 1000
    noise_variance: float = 1e-6
    num_features: int = 10000
    feature_lengthscale: float = 1.0
    feature_points: int = 500
    gamma: GammaName = "inverse"
    gamma_value: float = 1.0
    initial_queries: int = 10
    active_queries: int = 5
    active_candidates: int = 100
    active_radius: float = 0.01
    anchor_queries: int = 50
    anchor_candidates: int = 200
    on_failure: Literal["fail", "retry"] = "fail"
    USED_WITH: ClassVar[UsedWith] = {
        "lengthscale": any_of(other_than("kernel", "auto"), one_of("strategy.variant", "official")),
        "gamma_value": one_of("gamma", "constant"),
        "active_queries": above("strategy.local_steps", 1),
        "active_candidates": above("active_queries", 0),
        "anchor_queries": one_of("strategy.one_exchange", False),
        "anchor_candidates": above("anchor_queries", 0),
    }

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("max_points", "capacity", "num_features", "feature_points", "initial_queries"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("active_queries", "anchor_queries", "gamma_value", "lengthscale"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("noise_variance", "feature_lengthscale", "active_radius"):
            require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        for few, many in (
            ("active_queries", "active_candidates"),
            ("anchor_queries", "anchor_candidates"),
        ):
            most = getattr(self, many)
            require(getattr(self, few) <= most, few, getattr(self, few), f"at most {many}={most}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogated(Answer):
    """How far the steps on the surrogate have led, and its weights where they are sent with it."""

    update: Float[Tensor, "n d"] | None = None
    weights: Float[Tensor, "n f"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateQuestion(Question[Surrogated]):
    """What both exchanges of a round tell.

    variant: paper, or official as the published code. merged: whether the steps tell weights too.
    num_clients: of the federation.
    """

    answer: ClassVar[type[Answer]] = Surrogated

    settings: SurrogateConfig
    variant: VariantName
    merged: bool
    num_clients: int
    local_steps: int
    local_lr: float

    def _asking(self, queries: int) -> Cost:
        return Cost(queries=queries, floats=held(self.widest()))

    def _weights(self) -> dict[str, Shapes]:
        return {"weights": [(self.settings.num_features,)]}


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateSteps(SurrogateQuestion):
    """Local steps on each client's surrogate, corrected by that of all, whose weights are given.

    begin: whether these clients are asked for the first time.
    """

    kind: ClassVar[str] = "train.surrogate"
    vectors_up: ClassVar[tuple[str, ...]] = ("update",)
    vectors_down: ClassVar[tuple[str, ...]] = ("x",)

    x: Float[Tensor, " d"] | None = None
    weights: Float[Tensor, " f"] | None = None
    begin: bool
    dim: int = unsent(1)

    def shapes(self) -> Mapping[str, Shapes]:
        return {"update": [(self.dim,)], **(self._weights() if self.merged else {})}

    def cost(self) -> Cost:
        settings, steps = self.settings, self.local_steps
        first = settings.initial_queries if self.begin else 0
        return self._asking(first + steps + (steps - 1) * settings.active_queries)


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateWeights(SurrogateQuestion):
    """The weights of each client's surrogate, after queries around the server's new x."""

    kind: ClassVar[str] = "query.weights"
    vectors_down: ClassVar[tuple[str, ...]] = ("x",)

    x: Float[Tensor, " d"]

    def shapes(self) -> Mapping[str, Shapes]:
        return self._weights()

    def cost(self) -> Cost:
        return self._asking(1 + self.settings.anchor_queries)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeGradients(Answer):
    """The gradient of each client's surrogate at x, and the evidence of three lengthscales."""

    gradient: Float[Tensor, "n d"]
    evidence: Float[Tensor, "n e"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeGradient(Question[SlopeGradients]):
    """The gradient at x of a slope surrogate that never leaves the client, after new probes."""

    kind: ClassVar[str] = "query.slope_gradient"
    answer: ClassVar[type[Answer]] = SlopeGradients
    vectors_up: ClassVar[tuple[str, ...]] = ("gradient",)
    vectors_down: ClassVar[tuple[str, ...]] = ("x",)

    x: Float[Tensor, " d"]
    first_row: Int[Tensor, " n"] = each()
    kernel: KernelName
    lengthscale: float
    max_rows: int
    num_directions: int
    mu: float

    @property
    def prior(self) -> SlopePrior:
        """The prior that all clients' surrogates share."""
        return SlopePrior(kernel=self.kernel, lengthscale=self.lengthscale)

    def shapes(self) -> Mapping[str, Shapes]:
        return {"gradient": [tuple(self.x.shape)], "evidence": [(LENGTHSCALES,)]}

    def cost(self) -> Cost:
        return Cost(queries=self.num_directions + 1, floats=held(len(self.x), self.num_directions))


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedSteps(Question[Trained]):
    """Local steps on that surrogate, corrected by the mean gradient; they ask nothing."""

    kind: ClassVar[str] = "train.slopes"
    answer: ClassVar[type[Answer]] = Trained
    vectors_up: ClassVar[tuple[str, ...]] = ("update",)
    vectors_down: ClassVar[tuple[str, ...]] = ("gradient",)

    gradient: Float[Tensor, " d"]
    kernel: KernelName
    lengthscale: float
    max_rows: int
    local_steps: int
    local_lr: float

    @property
    def prior(self) -> SlopePrior:
        """The prior that all clients' surrogates share."""
        return SlopePrior(kernel=self.kernel, lengthscale=self.lengthscale)

    def shapes(self) -> Mapping[str, Shapes]:
        return {"update": [tuple(self.gradient.shape)]}
