"""What all local rules share: minibatches, and the check that values can tell points apart."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.estimation.schemes import require_resolved
from fedzo.objectives.cohort import CohortObjective
from fedzo.protocol.questions.training_config import MinibatchConfig
from fedzo.randomness import permutations
from fedzo.runtime.local import Clients


def require_resolution(clients: Clients, x: Float[Tensor, " d"], mu: float, reach: float) -> None:
    """Raise ConfigError, before the first round asks anything, where x + mu u is x.

    Later an x that has gone astray is no matter of settings.
    """
    if clients.moment.round_index <= 1:
        require_resolved(x, mu, reach)


def minibatches(
    clients: Clients, config: MinibatchConfig, steps: int, *, again: bool = False
) -> Int[Tensor, "n t b"] | None:
    """Return the examples that each client uses at each local step; None where it uses all.

    epochs: every client goes through its examples in random order, again and again; one that has
    fewer than `batch_size` uses all of them, once a step, unless batches are to differ (`again`).
    balanced: every minibatch has (nearly) as many examples of each class that the client has, drawn
    with replacement; clients with different shares of the classes then send much more alike
    gradients, which leaves malicious ones less room. Raises ConfigError when the objectives have no
    examples to choose from, or no classes.
    """
    batch_size, cohort = config.batch_size, clients.cohort
    if batch_size == 0:
        return None
    sizes = require_examples(cohort, batch_size).tolist()
    for position, size in enumerate(sizes):
        if size == 0:
            cohort.failures.setdefault(position, "the client has no examples")
    shape = (steps, batch_size)
    if config.sampling == "balanced":
        generators = clients.streams("balanced minibatches")
        labels = labels_of(cohort)
        pairs = zip(labels, generators, strict=True)
        return torch.stack([balanced(o, shape, generator=g) for o, g in pairs]).to(clients.device)
    if max(sizes) < batch_size and not again:
        return None
    if len(set(sizes)) == 1:
        return _epochs(clients, clients.ids, max(1, sizes[0]), shape).to(clients.device)
    rows = [
        _epochs(clients, [client], max(1, size), shape)
        if again or size >= batch_size
        else _whole(size, shape)
        for client, size in zip(clients.ids, sizes, strict=True)
    ]
    return torch.cat(rows).to(clients.device)


def require_examples(cohort: CohortObjective, batch_size: int) -> Int[Tensor, " n"]:
    """Return how many examples each client has; raises ConfigError for objectives without any."""
    if not hasattr(cohort, "sizes"):
        raise ConfigError(
            f"batch_size={batch_size} needs an objective over examples; set client.batch_size=0"
        )
    sizes: Tensor = cohort.sizes
    return sizes


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
    clients: Clients, ids: Sequence[int], size: int, shape: tuple[int, int]
) -> Int[Tensor, "n t b"]:
    """Return the minibatches of clients that have `size` examples each."""
    steps, batch_size = shape
    count = -(-steps * batch_size // size)
    where = (clients.seed, "minibatches", *clients.moment.parts)
    orders = permutations(*where, clients=ids, size=size, count=count)
    flat = torch.from_numpy(orders).flatten(1)
    return flat[:, : steps * batch_size].reshape(-1, steps, batch_size)
