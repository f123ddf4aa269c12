"""What privacy of records asks of objectives, through the oracle that counts it."""

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.oracle import Oracle
from fedzo.privacy import clipping
from fedzo.privacy.averages import points_beside, queries_to_compare, require_averages
from fedzo.privacy.rounding import Clipped


def clipped_gradients(
    oracle: Oracle,
    x: Float[Tensor, "n d"],
    previous: Float[Tensor, "n d"] | None,
    clip_norms: Float[Tensor, " n"],
    *,
    of: CohortObjective | None = None,
    max_floats: int = clipping.MAX_FLOATS,
) -> Clipped:
    """Return sums of the examples' clipped gradients, or of their changes since `previous`.

    One gradient, or two, of all examples are counted; `of` is a minibatch of the cohort.
    """
    oracle.count_gradients(1 if previous is None else 2, of=of)
    before = None if previous is None else oracle.asked_at(previous)
    part = of or oracle.cohort
    found = clipping.clipped_sums(
        part, oracle.asked_at(x), before, clip_norms, max_floats=max_floats
    )
    oracle.inspect(found.sums, "gradient")
    return found


def record_values(oracle: Oracle, x: Float[Tensor, "n q d"]) -> list[Float[Tensor, "q m"]]:
    """Return the loss of every example of each client at its points.

    It counts q queries a client, each with all examples behind it. Raises RunError when the budget
    does not cover them, ConfigError where the oracle adds noise.
    """
    if oracle.is_noisy:
        raise ConfigError("losses of single examples have no noise; set scenario.noise_std=0")
    oracle.spend(x.shape[1])
    with torch.no_grad():
        told = clipping.record_values(oracle.cohort, oracle.asked_at(x))
    oracle.inspect(torch.stack([values.mean(dim=1) for values in told]), "value")
    return told


def compare_records(oracle: Oracle, x: Float[Tensor, "n d"]) -> None:
    """Raise ConfigError where examples' losses do not average to a client's objective.

    It counts the queries that are asked for it, and nothing where that is known.
    """
    queries = queries_to_compare(oracle.cohort)
    if queries:
        oracle.spend(queries)
        require_averages(oracle.cohort, oracle.project(points_beside(x)))
