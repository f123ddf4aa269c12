"""One question to the cohort: values around x along directions that all clients share.

    directions: the next m rows of the run's random bases, orthonormal; m is at most d. With a
                lengthscale, x is a square image and they are made smooth (fedzo.surrogates.spatial)

A block that would reach over the end of a basis begins with the next basis instead. Floats a
client: d + 1 down; up as many as queries, or m where slopes are asked for. Queries: m + 1
(forward), 2 m (central), 1 more with x.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import Scalar
from fedzo.directions import basis_blocks
from fedzo.exchange import Exchange, Replies
from fedzo.surrogates.spatial import smooth_directions
from strategies.rounds import RoundPlan

DEFAULTS: Mapping[str, Scalar] = {"estimator": "forward", "num_directions": 20, "mu": 0.01}
"""For strategies that are built without settings of their clients; those of ProbesConfig."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What the cohort answered, along which directions [m, d], and the row after them.

    values: [n, q] at the points, or the slopes [n, m].
    """

    values: Float[Tensor, "n q"]
    directions: Float[Tensor, "m d"]
    next_row: int


def probe(
    x: Float[Tensor, " d"],
    plan: RoundPlan,
    next_row: int,
    settings: Mapping[str, Scalar],
    *,
    base: bool = False,
    slopes: bool = False,
) -> Generator[list[Exchange], list[Replies], Probed | None]:
    """Ask the cohort for values, with `base` at x too, or for slopes.

    Returns None when the budget does not allow it.
    """
    dim = len(x)
    m = min(int(settings["num_directions"]), dim)
    first = next_row if next_row % dim + m <= dim else (next_row // dim + 1) * dim
    answer = "slopes" if slopes else "values"
    count = m if slopes else m * (1 + (settings.get("estimator") == "central")) + base
    [replies] = yield [
        Exchange(
            kind="query.probes",
            client_ids=plan.cohort,
            shared={"x": x},
            per_client={"first_row": torch.full((len(plan.cohort),), first)},
            config={**settings, "num_directions": m, "base": base, "answer": answer},
            expects={answer: [(count,), (0,)]},
        )
    ]
    values = replies.tensors[answer].double()
    if values.shape[1] == 0:
        return None
    [rough] = basis_blocks(torch.tensor([first]), m, dim, seed=plan.seed, problem=plan.problem)
    directions = smooth_directions(rough, float(settings.get("lengthscale", 0.0)))
    return Probed(values, directions, first + m)
