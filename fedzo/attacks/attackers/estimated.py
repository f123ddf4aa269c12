"""Descent along an estimated gradient: any difference scheme, any directions, any optimizer.

    g = scale / m sum_i c_i u_i,  c = slopes of the scheme at delta(z) along u
    z <- optimizer(z, g),   normalized: g / |g|_2 for l2, sign(g) otherwise;   delta = P(z)

`nes` is central differences along Gaussian directions and sign steps: Ilyas, Engstrom, Athalye &
Lin, "Black-box Adversarial Attacks with Limited Queries and Information", ICML 2018, section 2.
`zo` is any other: FedZO's estimator, ZO-SGD, ZO-Adam. `rank` sees only which of the points are
better: Tang, Rybin & Chang, "Zeroth-Order Optimization Meets Human Feedback", ICLR 2024 (RankSGD),

    g = - sum_r w_r u_(r) / (m (m - 1) / 2),   w_r = m - 1 - 2 r for place r = 0 .. m - 1

whose weights sum to 0; their code has m - 2 r, which is not invariant to a shift of all u. Shapes:
z [p], directions [m, p]. Cost: the scheme's queries a step (rank: m).
Differs from the papers: steps are in units of the radius; rank has no line search, for every
request of a judge would be one more.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Search, Task
from fedzo.attacks.region import Region, require_seen
from fedzo.config import check_types, require
from fedzo.estimation.directions import DirectionKind, sample_directions
from fedzo.estimation.schemes import (
    SCHEMES,
    Differences,
    EstimatorName,
    estimator_scale,
    gradient_coefficients,
)
from fedzo.optimizers import WITH_MOMENTUM, OptimizerName, make_optimizer
from fedzo.used_with import UsedWith, one_of, other_than

StepRule = Literal["normalized", "raw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedDescent:
    """The attackers `nes` and `zo`.

    mu: smoothing radius; lr: step, both in units of the radius (l0, patch: of [0, 1]), a value's
    for linf, the whole vector's for l2. step: whether steps have that length, or that of g times
    lr.
    """

    estimator: EstimatorName = "central"
    directions: DirectionKind = "gaussian"
    num_directions: int = 10
    mu: float = 0.2
    lr: float = 0.2
    optimizer: OptimizerName = "sgd"
    momentum: float = 0.5
    step: StepRule = "normalized"
    USED_WITH: ClassVar[UsedWith] = {
        **dict.fromkeys(("directions", "num_directions"), other_than("estimator", "coordinate")),
        "momentum": one_of("optimizer", *WITH_MOMENTUM),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        for name in ("mu", "lr"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "positive and finite")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0, below 1")

    def first_step(self, task: Task) -> int:
        """Return the queries of a step, of two where slopes are between steps, and one more."""
        scheme, dim = SCHEMES[self.estimator], task.coordinates.dim(task.region)
        m = dim if scheme.axes else self.num_directions
        return (1 + scheme.remembers) * scheme.num_queries(m) + 1

    def search(self, task: Task) -> Search:
        region, dim = task.region, task.coordinates.dim(task.region)
        unit, mu = _units(region, dim, self.mu)
        _require_seen(task, mu, self.mu)
        differences = Differences.named(self.estimator, mu)
        axes = differences.scheme.axes
        optimizer = make_optimizer(self.optimizer, momentum=self.momentum)
        z = task.coordinates.start(region)
        state, memory = optimizer.init(z), None
        kind = "coordinate" if axes else self.directions
        m = dim if axes else self.num_directions
        scale = estimator_scale(differences.scheme, self.directions, dim)
        while True:
            u = sample_directions(kind, m, dim, generator=task.generator)
            points = differences.points(z.unsqueeze(0), u.unsqueeze(0))[0]
            reply = yield task.coordinates.perturbations(points, region)
            values = reply.losses.unsqueeze(0)
            slopes = differences.slopes(values, z.dtype, memory)
            memory = values if differences.scheme.remembers else None
            coefficients = gradient_coefficients(slopes, scale, complete=axes)[0]
            gradient = coefficients @ u
            if not bool(gradient.isfinite().all()):
                continue
            if self.step == "normalized":
                gradient = _normalized(gradient, region)
            state, z = optimizer.step(state, z, gradient, self.lr * unit)
            z = _kept(z, task)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSGD:
    """The attacker `rank`, for victims that order candidates; settings as of EstimatedDescent."""

    num_directions: int = 20
    mu: float = 0.5
    lr: float = 0.2
    momentum: float = 0.5

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_directions >= 2, "num_directions", self.num_directions, "at least 2")
        for name in ("mu", "lr"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "positive and finite")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0, below 1")

    def first_step(self, task: Task) -> int:
        """Return the candidates of a step, and one more."""
        return self.num_directions + 1

    def search(self, task: Task) -> Search:
        region, dim = task.region, task.coordinates.dim(task.region)
        unit, mu = _units(region, dim, self.mu)
        _require_seen(task, mu, self.mu)
        z = task.coordinates.start(region)
        velocity = torch.zeros_like(z)
        while True:
            u = sample_directions("gaussian", self.num_directions, dim, generator=task.generator)
            reply = yield task.coordinates.perturbations(z + mu * u, region)
            velocity = self.momentum * velocity + rank_gradient(reply.losses, u)
            z = _kept(z - self.lr * unit * _normalized(velocity, region), task)


def rank_gradient(
    losses: Float[Tensor, " m"], directions: Float[Tensor, "m p"]
) -> Float[Tensor, " p"]:
    """Return the gradient estimate of ZO-RankSGD from the order of the losses alone.

    Refused points, NaN, are left out; equal losses share the mean of their places' weights.
    """
    told = losses.isfinite()
    losses, directions = losses[told], directions[told]
    m = len(losses)
    if m < 2:
        return torch.zeros_like(directions.sum(dim=0))
    below = (losses.unsqueeze(0) < losses.unsqueeze(1)).sum(dim=1).double()
    equal = (losses.unsqueeze(0) == losses.unsqueeze(1)).sum(dim=1).double()
    place = below + (equal - 1) / 2
    weights = (m - 1 - 2 * place).to(directions)
    return -(weights @ directions) / (m * (m - 1) / 2)


def _units(region: Region, dim: int, mu: float) -> tuple[float, float]:
    """Return the unit of steps and the smoothing radius, in coordinates."""
    if region.norm == "l2":
        unit = region.radius
        return unit, mu * unit / math.sqrt(dim)
    unit = region.radius if region.norm == "linf" else 1.0
    return unit, mu * unit


def _require_seen(task: Task, mu: float, given: float) -> None:
    """Raise ConfigError where a step of mu along every coordinate is no other image."""
    z = task.coordinates.start(task.region)
    points = torch.stack([z, z + mu, z - mu])
    here, *there = task.coordinates.perturbations(points, task.region)
    moved = max(float((one - here).abs().max()) for one in there)
    require_seen(moved, "mu", given, here.dtype)


def _normalized(gradient: Float[Tensor, " p"], region: Region) -> Float[Tensor, " p"]:
    unit: Tensor = gradient.sign()
    if region.norm == "l2":
        unit = gradient / gradient.norm().clamp(min=1e-12)
    return unit


def _kept(z: Float[Tensor, " p"], task: Task) -> Float[Tensor, " p"]:
    """Return z inside the region where it is the perturbation, or not far outside its own box."""
    if task.coordinates.name == "pixels":
        return task.region.project(z.to(task.region.lower)).to(z)
    if task.coordinates.name == "tanh":
        return z
    reach = task.region.radius if task.region.norm in ("linf", "l2") else 1.0
    return z.clamp(-reach, reach)
