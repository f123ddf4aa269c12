"""Samples of records that count for privacy: drawn where noise is drawn, for both are secret."""

import torch
from jaxtyping import Int
from torch import Tensor

from clients.core.local import require_examples
from fedzo.errors import ConfigError
from fedzo.privacy.gaussian import NoiseSource, private_generator
from fedzo.runtime.local import Clients


def drawn_records(
    clients: Clients, count: int, source: NoiseSource, step: int, *, setting: str
) -> Int[Tensor, "n b"]:
    """Return a fresh sample of so many of every client's records, without replacement.

    setting: that says how many. Raises ConfigError for objectives without records, and for a client
    that has fewer.
    """
    rows = []
    sizes = require_examples(clients.cohort, count).tolist()
    for client, size in zip(clients.ids, sizes, strict=True):
        if size < count:
            raise ConfigError(
                f"{setting}={count} exceeds the {size} records of client {client}; lower it"
            )
        where = ("private minibatches", *clients.moment.parts, step, client)
        generator = private_generator(source, clients.seed, *where)
        rows.append(torch.from_numpy(generator.permutation(size)[:count]))
    return torch.stack(rows).to(clients.device)
