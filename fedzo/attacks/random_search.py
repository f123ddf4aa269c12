"""Random search: keep a perturbation, propose changed ones, take the best where the loss falls.

    delta <- the proposal of lowest loss, if that is below the loss of delta

Shapes: delta [d]. Cost: one query a proposal; `candidates` of them are one request, for victims
that answer many images at nearly the price of one, or from afar.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Search, Task, lowest

Propose = Callable[[Float[Tensor, " d"], float], Float[Tensor, " d"]]
"""From a perturbation, and the share of the budget that has passed, to a changed one."""


def random_search(
    task: Task, start: Float[Tensor, " d"], propose: Propose, *, candidates: int
) -> Search:
    """Search from a perturbation; each request asks so many proposals."""
    proposals, best, asked = start.unsqueeze(0), math.inf, 0
    delta = start
    while True:
        reply = yield proposals
        first = lowest(reply.losses)
        if asked == 0 or float(reply.losses[first]) < best:
            delta, best = proposals[first], float(reply.losses[first].nan_to_num(math.inf))
        asked += len(proposals)
        passed = asked / task.query_budget
        proposals = torch.stack([propose(delta, passed) for _ in range(candidates)])
