"""What all local rules share: the settings of a round, minibatches, and the start of a cohort.

A rule starts every client at the shared x [d], moves it for `local_steps` steps, and answers with
the update x_end - x_start [n, d].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.cohort import CohortObjective
from fedzo.config import check_types, require
from fedzo.errors import ConfigError
from fedzo.estimators import require_resolved
from fedzo.exchange import Exchange
from fedzo.randomness import permutations, streams


@dataclass(frozen=True, slots=True, kw_only=True)
class MinibatchConfig:
    """What a rule can be told about its examples, where the objectives have some.

    batch_size: examples a step, 0 takes all. sampling: "epochs" goes through them in random order;
    "balanced" draws as many of each class that the client has.
    """

    batch_size: int = 0
    sampling: Literal["epochs", "balanced"] = "epochs"

    def __post_init__(self) -> None:
        check_types(self)
        size = self.batch_size
        require(size >= 0, "batch_size", size, "0 (all examples) or more")
        if self.sampling == "balanced":
            require(size >= 1, "batch_size", size, "at least 1 with sampling=balanced")


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


def require_resolution(exchange: Exchange, mu: float, reach: float) -> None:
    """Raise ConfigError, before the first round asks anything, where x + mu u is x.

    Later an x that has gone astray is no matter of settings.
    """
    if int(exchange.config.get("round_index", 0)) <= 1 and "x" in exchange.shared:
        require_resolved(exchange.shared["x"], mu, reach)


def minibatches(
    cohort: CohortObjective,
    config: MinibatchConfig,
    training: LocalTraining,
    client_ids: Sequence[int],
    *,
    again: bool = False,
) -> Int[Tensor, "n t b"] | None:
    """Return the examples that each client uses at each local step; None where it uses all.

    epochs: every client goes through its examples in random order, again and again; one that has
    fewer than `batch_size` uses all of them, once a step, unless batches are to differ (`again`).
    balanced: every minibatch has (nearly) as many examples of each class that the client has, drawn
    with replacement; clients with different shares of the classes then send much more alike
    gradients, which leaves malicious ones less room. Raises ConfigError when the objectives have no
    examples to choose from, or no classes.
    """
    batch_size = config.batch_size
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
    if config.sampling == "balanced":
        generators = streams(*training.key("balanced minibatches"), clients=client_ids)
        labels = labels_of(cohort)
        pairs = zip(labels, generators, strict=True)
        return torch.stack([balanced(own, shape, generator=g) for own, g in pairs])
    if max(sizes) < batch_size and not again:
        return None
    if len(set(sizes)) == 1:
        return _epochs(training, client_ids, max(1, sizes[0]), shape)
    rows = [
        _epochs(training, [client], max(1, size), shape)
        if again or size >= batch_size
        else _whole(size, shape)
        for client, size in zip(client_ids, sizes, strict=True)
    ]
    return torch.cat(rows)


def labels_of(cohort: CohortObjective) -> Sequence[Int[Tensor, " s"]]:
    """Return every client's labels; raises ConfigError where the objectives have none."""
    found: Sequence[Tensor] = (
        cohort.labels_by_client() if hasattr(cohort, "labels_by_client") else ()
    )
    if not found or any(labels.is_floating_point() or labels.ndim != 1 for labels in found):
        raise ConfigError(
            "client.sampling=balanced needs objectives with classes; set it to epochs"
        )
    return found


def balanced(
    labels: Int[Tensor, " s"], shape: tuple[int, int], *, generator: np.random.Generator
) -> Int[Tensor, "t b"]:
    """Return minibatches in which no class has two examples more than another."""
    steps, batch_size = shape
    if not len(labels):
        return torch.zeros(shape, dtype=torch.int64)
    order = labels.argsort(stable=True).cpu().numpy()
    counts = np.unique(labels.cpu().numpy(), return_counts=True)[1]
    turns = -(-batch_size // len(counts))
    classes = generator.random((steps, turns, len(counts))).argsort(axis=-1)
    classes = classes.reshape(steps, -1)[:, :batch_size]
    inside = (generator.random(shape) * counts[classes]).astype(np.int64)
    return torch.from_numpy(order[(counts.cumsum() - counts)[classes] + inside])


def part_of(cohort: CohortObjective, batch: Int[Tensor, "n b"] | None) -> CohortObjective:
    """Return the cohort on one minibatch a client, or the whole where there is none."""
    return cohort if batch is None else cohort.minibatch(batch)  # type: ignore[attr-defined]


def _whole(size: int, shape: tuple[int, int]) -> Int[Tensor, "1 t b"]:
    """Return minibatches of all `size` examples, filled up with -1."""
    rows = torch.full((1, *shape), -1)
    rows[:, :, :size] = torch.arange(size)
    return rows


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
