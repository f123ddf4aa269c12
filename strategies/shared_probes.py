"""One question to the cohort: values around x along directions that all clients share.

    directions: the next m rows of the run's random bases, orthonormal; m is at most d

A block that would reach over the end of a basis begins with the next basis instead. Floats a
client: d + 1 down, as many as queries up. Queries: m + 1 (forward), 2 m (central), 1 more with x.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import Scalar
from fedzo.directions import basis_blocks
from fedzo.exchange import Exchange, Replies
from strategies.rounds import RoundPlan

DEFAULTS: Mapping[str, Scalar] = {"estimator": "forward", "num_directions": 20, "mu": 0.01}
"""For strategies that are built without settings of their clients; those of ProbesConfig."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What the cohort answered [n, q], along which directions [m, d], and the row after them."""

    values: Float[Tensor, "n q"]
    directions: Float[Tensor, "m d"]
    next_row: int


def probe(
    x: Float[Tensor, " d"],
    plan: RoundPlan,
    next_row: int,
    settings: Mapping[str, Scalar],
    *,
    base: bool,
) -> Generator[list[Exchange], list[Replies], Probed | None]:
    """Ask the cohort; returns None when the budget does not allow it. `base` asks at x too."""
    dim = len(x)
    m = min(int(settings["num_directions"]), dim)
    first = next_row if next_row % dim + m <= dim else (next_row // dim + 1) * dim
    central = settings.get("estimator") == "central"
    [replies] = yield [
        Exchange(
            kind="query.probes",
            client_ids=plan.cohort,
            shared={"x": x},
            per_client={"first_row": torch.full((len(plan.cohort),), first)},
            config={**settings, "num_directions": m, "base": base},
            expects={"values": [(m * (1 + central) + base,), (0,)]},
        )
    ]
    values = replies.tensors["values"].double()
    if values.shape[1] == 0:
        return None
    [directions] = basis_blocks(torch.tensor([first]), m, dim, seed=plan.seed, problem=plan.problem)
    return Probed(values, directions, first + m)
