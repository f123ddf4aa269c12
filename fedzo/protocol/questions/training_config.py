"""Settings of the rules that take local steps, each with what its gradients cost."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from fedzo.config import check_types, require, require_nonnegative
from fedzo.estimation.directions import DirectionKind
from fedzo.estimation.schemes import SCHEMES, EstimatorName, MemorylessName
from fedzo.objectives.asking import OnFailure
from fedzo.objectives.oracle import BoundsPolicy, NonFinitePolicy
from fedzo.optimizers import WITH_MOMENTUM, LocalOptimizerName, OptimizerName
from fedzo.protocol.question import Cost, Policies, held
from fedzo.used_with import UsedWith, above, one_of, other_than

ESTIMATED = one_of("gradient", "zeroth_order")
DRAWN = other_than("estimator", "coordinate")


@dataclass(frozen=True, slots=True, kw_only=True)
class MinibatchConfig:
    """What a rule can be told about its examples, where the objectives have some.

    batch_size: examples a step, 0 takes all. sampling: "epochs" goes through them in random order;
    "balanced" draws as many of each class that the client has.
    """

    batch_size: int = 0
    sampling: Literal["epochs", "balanced"] = "epochs"
    USED_WITH: ClassVar[UsedWith] = {
        "sampling": above("batch_size", 0),
    }

    def __post_init__(self) -> None:
        check_types(self)
        size = self.batch_size
        require(size >= 0, "batch_size", size, "0 (all examples) or more")
        if self.sampling == "balanced":
            require(size >= 1, "batch_size", size, "at least 1 with sampling=balanced")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZerothOrderConfig(MinibatchConfig):
    """Settings of the rule `zeroth_order`.

    estimator: forward, central, residual (one query a direction) or coordinate (all axes).
    directions: their law, see fedzo.estimation.directions; num_directions: a step and client.
    mu: smoothing radius, in units of x. lengthscale: above 0, x is a square image and directions
    are smooth over so many pixels, so the estimate is that of K grad f, K as in
    fedzo.surrogates.spatial, up to scale. optimizer, momentum: the local optimizer.
    non_finite: "fail" or "skip" values that are NaN or inf. out_of_bounds: "clip" or "allow"
    queries outside the box. project: whether iterates are projected onto the box. on_failure:
    "fail", "retry" or "skip" points at which a client's code raises.
    """

    estimator: EstimatorName = "forward"
    directions: DirectionKind = "orthogonal"
    num_directions: int = 20
    mu: float = 0.01
    lengthscale: float = 0.0
    optimizer: OptimizerName = "adam"
    momentum: float = 0.0
    non_finite: NonFinitePolicy = "fail"
    out_of_bounds: BoundsPolicy = "clip"
    project: bool = False
    on_failure: OnFailure = "fail"
    USED_WITH: ClassVar[UsedWith] = {
        "directions": DRAWN,
        "num_directions": DRAWN,
        "lengthscale": DRAWN,
        "momentum": (one_of("optimizer", *WITH_MOMENTUM), above("strategy.local_steps", 1)),
    }

    def __post_init__(self) -> None:
        MinibatchConfig.__post_init__(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < float("inf"), "mu", self.mu, "a positive number")
        axes = SCHEMES[self.estimator].axes
        require_nonnegative("lengthscale", self.lengthscale)
        require(
            not (axes and self.lengthscale), "lengthscale", self.lengthscale, "0 along the axes"
        )
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")

    def directions_in(self, dim: int) -> int:
        """Return how many directions an estimate takes."""
        return dim if SCHEMES[self.estimator].axes else self.num_directions

    def cost(self, dim: int, estimates: int) -> Cost:
        """Return what so many estimates take, one after the other."""
        m = self.directions_in(dim)
        queries = estimates * SCHEMES[self.estimator].num_queries(m)
        return Cost(queries=queries, floats=held(dim, m))

    @property
    def policies(self) -> Policies:
        return Policies(self.non_finite, self.out_of_bounds, can_skip=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstOrderConfig(MinibatchConfig):
    """Settings of the rule `first_order`.

    optimizer, momentum: the local optimizer; adahessian takes two gradients a step. project:
    whether iterates are projected onto the box. compile: whether the local loop is compiled (10 to
    90 s, once); for scenarios with stacked objectives, and for torch modules that differ in nothing
    but their tensors.
    """

    optimizer: LocalOptimizerName = "sgd"
    momentum: float = 0.0
    out_of_bounds: BoundsPolicy = "clip"
    project: bool = False
    compile: bool = False
    USED_WITH: ClassVar[UsedWith] = {
        "momentum": (
            one_of("optimizer", *WITH_MOMENTUM, "adahessian", "microadam"),
            above("strategy.local_steps", 1),
        ),
    }

    def __post_init__(self) -> None:
        MinibatchConfig.__post_init__(self)
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")

    def cost(self, dim: int, estimates: int) -> Cost:
        """Return what so many gradients take."""
        each = 2 if self.optimizer == "adahessian" else 1
        return Cost(gradients=each * estimates, floats=held(dim))

    @property
    def policies(self) -> Policies:
        return Policies(out_of_bounds=self.out_of_bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientConfig(MinibatchConfig):
    """Settings of rules that take exact gradients or estimate them.

    gradient: exact, or zeroth_order: made of values by `estimator`; coordinate uses as many
    directions as dimensions. num_directions: a step and client, otherwise; anchors and miners use
    at most as many as dimensions. mu: smoothing radius, in units of x. on_failure: "fail", "retry"
    or "skip" points at which a client's code raises.
    """

    gradient: Literal["exact", "zeroth_order"] = "exact"
    estimator: MemorylessName = "forward"
    num_directions: int = 20
    mu: float = 0.01
    non_finite: NonFinitePolicy = "fail"
    out_of_bounds: BoundsPolicy = "clip"
    on_failure: OnFailure = "fail"
    USED_WITH: ClassVar[UsedWith] = {
        **dict.fromkeys(("estimator", "mu", "non_finite", "on_failure"), ESTIMATED),
        "num_directions": (ESTIMATED, DRAWN),
    }

    def __post_init__(self) -> None:
        MinibatchConfig.__post_init__(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < float("inf"), "mu", self.mu, "a positive number")

    @property
    def exact(self) -> bool:
        """Whether gradients are autograd's."""
        return self.gradient == "exact"

    @property
    def policies(self) -> Policies:
        return Policies(self.non_finite, self.out_of_bounds, can_skip=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentumConfig(GradientConfig):
    """Settings of the rule `momentum`.

    beta: share of the old momentum. weight_decay: added to the gradient, times x. directions: their
    law, with gradient=zeroth_order, as in the rule of that name.
    """

    beta: float = 0.9
    weight_decay: float = 0.0
    directions: DirectionKind = "orthogonal"
    USED_WITH: ClassVar[UsedWith] = {
        "directions": (ESTIMATED, DRAWN),
    }

    def __post_init__(self) -> None:
        GradientConfig.__post_init__(self)
        require(0 <= self.beta < 1, "beta", self.beta, "at least 0 and below 1")
        require_nonnegative("weight_decay", self.weight_decay)

    @property
    def estimate(self) -> ZerothOrderConfig:
        """The settings of an estimate from values."""
        return ZerothOrderConfig(
            estimator=self.estimator,
            directions=self.directions,
            num_directions=self.num_directions,
            mu=self.mu,
        )

    def cost(self, dim: int, estimates: int) -> Cost:
        """Return what so many gradients take, exact or estimated."""
        if self.exact:
            return Cost(gradients=estimates, floats=held(dim, 0))
        return self.estimate.cost(dim, estimates)


TrainingConfig = ZerothOrderConfig | FirstOrderConfig | MomentumConfig
