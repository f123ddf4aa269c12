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
    """What the server says about a round and, of its exchanges, this one."""

    local_steps: int
    local_lr: float
    seed: int = 0
    round_index: int = 0
    exchange_index: int = 0
    problem: int = 0

    def key(self, purpose: str) -> tuple[int, str, int, int, int]:
        """Return the seed and the parts of the streams for a purpose in this exchange."""
        return (self.seed, purpose, self.problem, self.round_index, self.exchange_index)


def start_points(exchange: Exchange) -> Float[Tensor, "n d"]:
    """Return the shared x once for every client."""
    return exchange.shared["x"].expand(len(exchange.client_ids), -1)


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
    sizes = cohort.sizes.tolist()
    for position, size in enumerate(sizes):
        if size == 0:
            cohort.failures.setdefault(position, "the client has no examples")
    shape = (training.local_steps, batch_size)
    if len(set(sizes)) == 1:
        return _epochs(training, client_ids, max(1, sizes[0]), shape)
    rows = [
        _epochs(training, [client], max(1, size), shape)
        for client, size in zip(client_ids, sizes, strict=True)
    ]
    return torch.cat(rows)


def part_of(cohort: CohortObjective, batch: Int[Tensor, "n b"] | None) -> CohortObjective:
    """Return the cohort on one minibatch a client, or the whole where there is none."""
    return cohort if batch is None else cohort.minibatch(batch)  # type: ignore[attr-defined]


def _epochs(
    training: LocalTraining, clients: Sequence[int], size: int, shape: tuple[int, int]
) -> Int[Tensor, "n t b"]:
    """Return the minibatches of clients that have `size` examples each."""
    steps, batch_size = shape
    count = -(-steps * batch_size // size)
    where = training.key("minibatches")
    orders = permutations(*where, clients=clients, size=size, count=count)
    flat = torch.from_numpy(orders).flatten(1)
    return flat[:, : steps * batch_size].reshape(-1, steps, batch_size)
