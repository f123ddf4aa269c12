"""CGBA: along circles between the image and the decision boundary, by labels alone; norm L2.

    start: the task's own, or the nearest of `starts` images under stripes that succeeds, or noise
    then for t = 1, 2, ...
    1. n = sum_b (phi_b - mean phi) u_b,   phi_b = +-1: success at delta + r u_b or not;
       u_b of norm 1;   B = first_directions sqrt(t);   r = smoothing |delta|
    2. on the circle whose diameter is delta, in the plane of delta and n,
       |delta| cos(theta) (cos(theta) a + sin(theta) e),   a, e orthonormal in that order,
       bisect for the largest theta in [0, pi / 2] that succeeds: nearer by cos(theta)

Reza, Rahmati, Wu & Dai, "CGBA: Curvature-aware Geometric Black-box Attack", ICCV 2023. Nothing is
remembered but delta; its direction is the sum of all normals found so far.

Differs from the paper: u_b are Gaussian stripes along rows and columns for the first `stripes`
queries a stripe, and Gaussian combinations of the lowest cosine waves only then (there: always);
three channels change in luma alone; r is a share of the distance; and the start. What each of these
saves on photographs: docs/results/attacks.md. Shapes: delta [d]. Cost of a step: B + bisections.
"""

import itertools
import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Reply, Search, Task
from fedzo.attacks.attackers.hopskipjump import Asks, bisect, first_start, first_success
from fedzo.attacks.coordinates import waves
from fedzo.attacks.region import Region, Shape, require_seen
from fedzo.attacks.stripes import crossed, grey
from fedzo.config import check_types, require
from fedzo.errors import ConfigError

_WIDEST = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Sizes at which the first stripes are asked, in those of the whole box."""
_NEARER = 0.9
_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgba:
    """The attacker `cgba`; norm l2.

    first_directions: B at t = 1. smoothing: r, in units of |delta|. bisections: of the angle.
    starts: images under stripes that are tried first. stripes: queries a stripe whose probes are
    stripes; an image has as many as it has rows and columns. waves: lowest cosine waves of a side,
    as a share of its pixels.
    """

    first_directions: int = 15
    smoothing: float = 0.2
    bisections: int = 6
    starts: int = 20
    stripes: float = 2.0
    waves: float = 0.3

    def __post_init__(self) -> None:
        check_types(self)
        require(self.first_directions >= 2, "first_directions", self.first_directions, "2 or more")
        for name in ("bisections", "starts"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(0 < self.smoothing < math.inf, "smoothing", self.smoothing, "positive and finite")
        require(0 <= self.stripes < math.inf, "stripes", self.stripes, "0 or more, and finite")
        require(0 < self.waves <= 1, "waves", self.waves, "in (0, 1]")

    def search(self, task: Task) -> Search:
        region = task.region
        if region.norm != "l2":
            raise ConfigError(
                f"attacker cgba is for norm l2, not {region.norm}; use edge or hopskipjump"
            )
        delta = yield from self._start(task)
        if delta is None:
            return
        left = self.stripes * sum(region.shape[1:])
        for t in itertools.count(1):
            count = max(2, round(self.first_directions * math.sqrt(t)))
            draw = _stripes if left > 0 else self._waves
            u = draw(count, region.shape, task.generator).to(delta)
            u = u / u.norm(dim=1, keepdim=True)
            radius = self.smoothing * float(delta.norm())
            if t == 1:
                reach = radius * float(u.abs().max())
                require_seen(reach, "smoothing", self.smoothing, delta.dtype)
            reply = yield (delta + radius * u).clamp(region.lower, region.upper)
            phi = 2.0 * reply.reached.to(delta) - 1
            weights = phi - phi.mean() if phi.abs().sum() != phi.sum().abs() else phi
            delta = yield from self._along_circle(delta, weights @ u, region)
            left -= count + self.bisections

    def _start(self, task: Task) -> Generator[Float[Tensor, "q d"], Reply, Tensor | None]:
        """Return a success, None if there is none to be found."""
        region = task.region
        if task.starts is not None:
            given: Tensor | None = yield from first_start(task)
            if given is not None:
                return given
        whole = float((region.upper - region.lower).norm())
        best: Tensor | None = None
        for number in range(self.starts):
            heights = task.generator.choice(np.array([-1.0, 1.0]), (1, sum(region.shape[1:])))
            one_way = torch.from_numpy(heights).float()
            one_way[:, : region.shape[1]] *= number % 2
            one_way[:, region.shape[1] :] *= 1 - number % 2
            unit = grey(crossed(one_way, region.shape), region.shape[0])[0].to(region.lower)
            unit = unit / unit.norm()
            sizes = (
                [share * whole for share in _WIDEST]
                if best is None
                else [_NEARER * float(best.norm())]
            )
            for size in sizes:
                delta = (size * unit).clamp(region.lower, region.upper)
                reply = yield delta.unsqueeze(0)
                if bool(reply.reached[0]):
                    best = yield from bisect(delta, region, _TOLERANCE)
                    break
        if best is not None:
            return best
        found: Tensor | None = yield from first_success(task)
        return found

    def _along_circle(
        self, delta: Float[Tensor, " d"], normal: Float[Tensor, " d"], region: Region
    ) -> Asks:
        """Return the nearest success on the half circle from delta to the image."""
        size = float(delta.norm())
        a = delta / size
        e = torch.nn.functional.normalize(normal - (normal @ a) * a, dim=0)
        low, high = 0.0, math.pi / 2
        for _ in range(self.bisections):
            theta = (low + high) / 2
            moved = size * math.cos(theta) * (math.cos(theta) * a + math.sin(theta) * e)
            moved = moved.clamp(region.lower, region.upper)
            reply = yield moved.unsqueeze(0)
            if bool(reply.reached[0]):
                low, delta = theta, moved
            else:
                high = theta
        return delta

    def _waves(
        self, count: int, shape: Shape, generator: np.random.Generator
    ) -> Float[Tensor, "q d"]:
        rows, columns = (waves(side, max(1, round(self.waves * side))) for side in shape[1:])
        drawn = generator.standard_normal((count, len(rows), len(columns)), dtype=np.float32)
        return grey(rows.T @ torch.from_numpy(drawn) @ columns, shape[0])


def _stripes(count: int, shape: Shape, generator: np.random.Generator) -> Float[Tensor, "q d"]:
    heights = generator.standard_normal((count, sum(shape[1:])), dtype=np.float32)
    return grey(crossed(torch.from_numpy(heights), shape), shape[0])
