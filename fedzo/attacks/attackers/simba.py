"""SimBA: one basis vector at a time, forward or backward, kept if the loss falls.

    delta' = P(delta + s q),  then P(delta - s q);   q from an orthonormal basis in random order

Guo, Gardner, You, Wilson & Weinberger, "Simple Black-box Adversarial Attacks", ICML 2019, algorithm
1; the basis is that of the task's coordinates (pixels, or cosine waves for SimBA-DCT). Differs from
the paper: P keeps delta in a ball, whatever its norm; a basis that is used up is drawn anew.
Shapes: delta [d]. Cost: one or two queries a vector.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Search, Task
from fedzo.attacks.region import require_seen
from fedzo.config import check_types, require


@dataclass(frozen=True, slots=True, kw_only=True)
class SimBA:
    """The attacker `simba`; step is the norm of a change: 0 for the radius (linf), or a tenth."""

    step: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.step < math.inf, "step", self.step, "0 (automatic) or more")

    def first_step(self, task: Task) -> int:
        """Return the image itself, and a proposal."""
        return 2

    def search(self, task: Task) -> Search:
        region = task.region
        step = self.step or _step(task)
        longest = 1.0 if task.coordinates.name == "pixels" else region.dim**-0.5
        require_seen(step * longest, "step", step, region.lower.dtype)
        delta = torch.zeros_like(region.lower)
        reply = yield delta.unsqueeze(0)
        best = float(reply.losses[0].nan_to_num(torch.inf))
        for q in _vectors(task):
            for sign in (1.0, -1.0):
                proposal = region.project(delta + sign * step * q.to(delta))
                if torch.equal(proposal, delta):
                    continue
                reply = yield proposal.unsqueeze(0)
                if float(reply.losses[0]) < best:
                    delta, best = proposal, float(reply.losses[0])
                    break


def _step(task: Task) -> float:
    """Return the length of a change that makes a difference: coordinates are as long as they go."""
    region = task.region
    if region.norm == "l2":
        return region.radius / 5
    reach = region.radius if region.norm == "linf" else 1.0
    basis = task.coordinates.basis(region.shape)
    return reach if basis is None else reach * math.sqrt(region.dim)


def _vectors(task: Task) -> Iterator[Float[Tensor, " d"]]:
    """Yield orthonormal vectors in random order, again and again."""
    basis, dim = task.coordinates.basis(task.region.shape), task.region.dim
    while True:
        for i in task.generator.permutation(dim if basis is None else len(basis)):
            if basis is None:
                yield torch.from_numpy(np.eye(1, dim, int(i), dtype=np.float32)[0])
            else:
                yield basis[int(i)] / basis[int(i)].norm()
