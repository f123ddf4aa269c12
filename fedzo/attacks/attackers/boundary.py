"""The distance of the decision boundary as a loss: attackers by scores for victims of labels.

    L(delta) = log(rho / radius),   rho = least size at which delta / |delta|, scaled, succeeds

Below 0 inside the ball, so whatever descends on it attacks by labels alone. Cheng, Le, Chen, Yi,
Zhang & Hsieh, "Query-Efficient Hard-label Black-box Attack: An Optimization-based Approach", ICLR
2019, section 3.1; their attack is `zo` with this loss. Differs from the paper: the logarithm, and
sizes are looked for from the radius, where the attack ends, up to `widest` radii, where the loss
stays; all proposals are bisected at once. Shapes: delta [d]. Cost: 2 queries a proposal, and where
it succeeds at all log2(log(widest) / tolerance) more.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Attacker, Reply, Search, Task, start
from fedzo.attacks.attackers.hopskipjump import check_norm
from fedzo.attacks.budget import first_step
from fedzo.attacks.region import Region
from fedzo.config import check_types, require


@dataclass(frozen=True, slots=True)
class Boundary:
    """An attacker by scores that is told distances.

    tolerance: relative size at which bisection ends.
    """

    attacker: Attacker
    widest: float = 8.0
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        check_types(self)
        require(1 < self.widest < math.inf, "widest", self.widest, "above 1, and finite")
        require(0 < self.tolerance < 1, "tolerance", self.tolerance, "between 0 and 1")

    @property
    def bisections(self) -> int:
        """Return the queries between the radius and the widest size."""
        return math.ceil(math.log2(math.log(self.widest) / self.tolerance))

    def first_step(self, task: Task) -> int:
        """Return two queries a proposal, and the bisections of one that succeeds."""
        return 2 * first_step(self.attacker, task) + self.bisections

    def search(self, task: Task) -> Search:
        check_norm(task.region, "loss boundary")
        proposals = max(1, task.query_budget // (2 + self.bisections))
        running = start(self.attacker, replace(task, query_budget=proposals))
        while not running.done:
            running.tell((yield from self._distances(running.asked, task.region)))

    def _distances(
        self, deltas: Float[Tensor, "q d"], region: Region
    ) -> Generator[Float[Tensor, "q d"], Reply, Reply]:
        """Return the losses of directions; what is refused at the widest has none."""
        wide = math.log(self.widest)
        yield _scaled(deltas, torch.zeros(len(deltas)), region)
        reply = yield _scaled(deltas, torch.full((len(deltas),), wide), region)
        losses = torch.where(reply.losses.isnan(), torch.nan, wide).double()
        rows = reply.reached.nonzero().flatten()
        low, high = torch.zeros(len(rows)), torch.full((len(rows),), wide)
        for _ in range(self.bisections if len(rows) else 0):
            middle = (low + high) / 2
            hit = (yield _scaled(deltas[rows], middle, region)).reached
            low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
        losses[rows] = high.double()
        return Reply(losses, torch.zeros_like(reply.reached))


def _scaled(
    deltas: Float[Tensor, "q d"], sizes: Float[Tensor, " q"], region: Region
) -> Float[Tensor, "q d"]:
    """Return the directions at log(size / radius), inside the box."""
    sizes = region.radius * sizes.exp()
    if region.norm == "l2":
        pairs = zip(deltas, sizes.tolist(), strict=True)
        return torch.stack([region.of_radius(size).toward(-delta) for delta, size in pairs])
    largest = deltas.abs().amax(dim=1).clamp(min=1e-12)
    scaled = deltas * (sizes / largest).to(deltas).unsqueeze(1)
    return scaled.clamp(region.lower, region.upper)
