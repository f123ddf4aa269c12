"""One question to the cohort: values around x along directions that all clients share.

    directions: the next m rows of the run's random bases, orthonormal; m is at most d. With a
                lengthscale, x is a square image and they are made smooth (fedzo.surrogates.spatial)

A block that would reach over the end of a basis begins with the next basis instead. Floats a
client: d + 1 down; up as many as queries, or m where slopes are asked for. Queries: m + 1
(forward), 2 m (central), 1 more with x.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.estimation.directions import basis_blocks
from fedzo.protocol.questions.probes import Probes, ProbesConfig
from fedzo.surrogates.spatial import smooth_directions
from strategies.core.asking import Asking, ask
from strategies.core.rounds import RoundPlan


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
    settings: ProbesConfig,
    *,
    base: bool = False,
    slopes: bool = False,
) -> Asking[Probed | None]:
    """Ask the cohort for values, with `base` at x too, or for slopes.

    Returns None when the budget does not allow it.
    """
    dim = len(x)
    m = min(settings.num_directions, dim)
    first = next_row if next_row % dim + m <= dim else (next_row // dim + 1) * dim
    question = Probes(
        x=x,
        first_row=torch.full((len(plan.cohort),), first),
        estimator=settings.estimator,
        num_directions=m,
        mu=settings.mu,
        lengthscale=settings.lengthscale,
        base=base,
        slopes=slopes,
    )
    heard = yield from ask(question, plan.cohort)
    told = heard.said.slopes if slopes else heard.said.values
    assert told is not None
    if told.shape[1] == 0:
        return None
    [rough] = basis_blocks(torch.tensor([first]), m, dim, seed=plan.seed, problem=plan.problem)
    directions = smooth_directions(rough, settings.lengthscale)
    return Probed(told.double(), directions, first + m)
