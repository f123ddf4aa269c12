"""What all local rules share: the settings of a round, minibatches, and the start of a cohort.

A rule starts every client at the shared x [d], moves it for `local_steps` steps, and answers with
the update x_end - x_start [n, d].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.cohort import CohortObjective
from fedzo.errors import ConfigError
from fedzo.exchange import Exchange
from fedzo.randomness import permutations


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTraining:
    """What the server says about a round; `seed`, `problem`, `round_index` name the streams."""

    local_steps: int
    local_lr: float
    seed: int = 0
    round_index: int = 0
    problem: int = 0


def start_points(exchange: Exchange) -> Float[Tensor, "n d"]:
    """Return the shared x once for every client."""
    x = exchange.shared["x"]
    return x.expand(len(exchange.client_ids), -1)


def minibatches(
    cohort: CohortObjective,
    batch_size: int,
    training: LocalTraining,
    client_ids: Sequence[int],
) -> Int[Tensor, "n t b"] | None:
    """Return the examples that each client uses at each local step; None where it uses all.

    Every client goes through its examples in random order, epoch after epoch. Raises ConfigError
    when the objectives have no examples to choose from.
    """
    if batch_size == 0:
        return None
    if not hasattr(cohort, "sizes"):
        raise ConfigError(
            f"batch_size={batch_size} needs an objective over examples; set client.batch_size=0"
        )
    sizes = cohort.sizes
    steps, smallest = training.local_steps, int(sizes.min())
    epochs = -(-steps * batch_size // smallest)
    where = (training.seed, "minibatches", training.problem, training.round_index)
    orders = torch.from_numpy(
        permutations(*where, clients=client_ids, sizes=sizes.tolist(), count=epochs)
    )
    if epochs == 1 and smallest == int(sizes.max()):
        return orders[:, 0, : steps * batch_size].reshape(-1, steps, batch_size)
    places = torch.arange(steps * batch_size).expand(len(client_ids), -1)
    flat = places // sizes[:, None] * orders.shape[-1] + places % sizes[:, None]
    return orders.flatten(1).gather(1, flat).reshape(-1, steps, batch_size)
