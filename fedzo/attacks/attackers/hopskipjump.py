"""HopSkipJump: walk along the decision boundary by labels alone, ever nearer to the image.

    start: any perturbation that succeeds;  then for t = 1, 2, ...
    1. bisect between the image and the perturbation down to the boundary
    2. g = 1/B sum_b (phi_b - mean phi) u_b,  phi_b = +-1: success at delta + r u_b or not;
       B = first_directions sqrt(t);  r = smoothing |delta|_2 / sqrt(dim)
    3. delta + s v,  v = g / |g| (l2) or sign(g) (linf),  s = distance / sqrt(t),
       halved until it succeeds

Chen, Jordan & Wainwright, "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack", S&P 2020,
algorithm 2. u are Gaussian combinations of the task's coordinates, normalized: with waves this is
QEBA-F of Li, Xu, Zhang, Yang & Li, CVPR 2020. Differs from the paper: r (theirs is smaller and
depends on the norm), and before each bisection the line is asked where it enters the ball, for
there the attack ends. Where 100 random images all fail to begin with, and the task's starts too, it
gives up. Shapes: delta [d]. Cost of a step: B + bisection (the tolerance's) + halvings.
"""

import itertools
import math
from collections.abc import Generator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Reply, Search, Task
from fedzo.attacks.region import Region, require_seen
from fedzo.config import check_types, require
from fedzo.errors import ConfigError

_STARTS = 100
_HALVINGS = 10

Asks = Generator[Float[Tensor, "q d"], Reply, Float[Tensor, " d"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HopSkipJump:
    """The attacker `hopskipjump`.

    first_directions: B at t = 1. tolerance: relative length of the line at which bisection ends.
    smoothing: r, in units of |delta| / sqrt(dimension).
    """

    first_directions: int = 30
    tolerance: float = 0.02
    smoothing: float = 0.9

    def __post_init__(self) -> None:
        check_types(self)
        require(self.first_directions >= 2, "first_directions", self.first_directions, "2 or more")
        require(0 < self.tolerance < 1, "tolerance", self.tolerance, "between 0 and 1")
        require(self.smoothing > 0, "smoothing", self.smoothing, "positive")

    def search(self, task: Task) -> Search:
        check_norm(task.region, "attacker hopskipjump")
        delta = yield from first_success(task)
        if delta is not None:
            yield from self.walk(delta, task)

    def walk(self, delta: Float[Tensor, " d"], task: Task) -> Search:
        """Walk along the boundary from a perturbation that succeeds."""
        region = task.region
        for t in itertools.count(1):
            delta = yield from bisect(delta, region, self.tolerance)
            v = yield from self._boundary_gradient(delta, t, task)
            length = region.size(delta) / math.sqrt(t)
            for _ in range(_HALVINGS):
                proposal = (delta + length * v).clamp(region.lower, region.upper)
                reply = yield proposal.unsqueeze(0)
                if bool(reply.reached[0]):
                    delta = proposal
                    break
                length /= 2

    def _boundary_gradient(self, delta: Float[Tensor, " d"], t: int, task: Task) -> Asks:
        """Return the direction in which more perturbations succeed, of norm 1 or of signs."""
        region, basis = task.region, task.coordinates.basis(task.region.shape)
        count = max(2, round(self.first_directions * math.sqrt(t)))
        dim = region.dim if basis is None else len(basis)
        u = torch.from_numpy(task.generator.standard_normal((count, dim))).to(delta)
        u = u if basis is None else u @ basis
        u = u / u.norm(dim=1, keepdim=True)
        radius = self.smoothing * float(delta.norm()) / math.sqrt(dim)
        if t == 1:
            reach = radius * float(u.abs().max())
            require_seen(reach, "smoothing", self.smoothing, delta.dtype)
        points = (delta + radius * u).clamp(region.lower, region.upper)
        reply = yield points
        phi = 2.0 * reply.reached.to(delta) - 1
        weights = phi - phi.mean() if phi.abs().sum() != phi.sum().abs() else phi
        g = weights @ (points - delta)
        v: Tensor = g.sign() if region.norm == "linf" else g / g.norm().clamp(min=1e-12)
        return v


def check_norm(region: Region, who: str) -> Region:
    """Return the region; raises ConfigError for norms whose ball does not shrink continuously."""
    if region.norm not in ("linf", "l2"):
        raise ConfigError(
            f"{who} knows the norms linf and l2, not {region.norm}; use thompson or square, with a"
            " victim that tells scores"
        )
    return region


def shorter(delta: Float[Tensor, " d"], share: float, region: Region) -> Float[Tensor, " d"]:
    """Return the nearest perturbation to delta in the ball of a share of its size."""
    if region.norm == "l2":
        return share * delta
    most = share * float(delta.abs().max())
    return delta.clamp(-most, most)


def bisect(delta: Float[Tensor, " d"], region: Region, tolerance: float) -> Asks:
    """Return the smallest success on the way from delta, which succeeds, to the ball."""
    size = region.size(delta)
    if size <= region.radius:
        return delta
    low, high = region.radius / size, 1.0
    reply = yield shorter(delta, low * (1 - 1e-6), region).unsqueeze(0)
    if bool(reply.reached[0]):
        return shorter(delta, low * (1 - 1e-6), region)
    while high - low > tolerance * high:
        middle = (low + high) / 2
        reply = yield shorter(delta, middle, region).unsqueeze(0)
        low, high = (low, middle) if bool(reply.reached[0]) else (middle, high)
    return shorter(delta, high, region)


def first_success(task: Task) -> Generator[Float[Tensor, "q d"], Reply, Tensor | None]:
    """Return the first of some random images, or of the task's starts, that succeeds; or None."""
    region = task.region
    for _ in range(_STARTS):
        share = torch.from_numpy(task.generator.random(region.dim)).to(region.lower)
        delta = region.lower + share * (region.upper - region.lower)
        reply = yield delta.unsqueeze(0)
        if bool(reply.reached[0]):
            return delta
    given: Tensor | None = yield from first_start(task)
    return given


def first_start(task: Task) -> Generator[Float[Tensor, "q d"], Reply, Tensor | None]:
    """Return the first of the task's starts that succeeds, None if none of them does."""
    if task.starts is None:
        return None
    for row in range(len(task.starts)):
        delta: Tensor = task.starts[row]
        reply = yield delta.unsqueeze(0)
        if bool(reply.reached[0]):
            return delta
    return None
