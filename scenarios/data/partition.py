"""Who has which examples: ways to split labelled data over clients.

Each returns one array of example indices a client; the arrays are disjoint. Labels [n] are integers
from 0.

| function       | what differs between clients                                               |
|----------------|----------------------------------------------------------------------------|
| iid            | nothing                                                                    |
| by_label       | every client has k classes, every class (nearly) equally many clients      |
| dirichlet      | class shares ~ Dirichlet(alpha) (Hsu, Qi & Brown, arXiv 1909.06335)        |
| by_owner       | whatever a column of the table says                                        |
| quantity_skew  | number of examples ~ Dirichlet(alpha) (Li et al., "NIID-Bench", ICDE 2022) |
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedzo.config import check_types, require
from fedzo.errors import ConfigError, FedzoWarning

PartitionKind = Literal["iid", "by_label", "dirichlet", "quantity_skew"]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """How to split: the kind, classes a client (by_label), alpha (dirichlet, quantity_skew).

    min_size: fewest examples of a client. shuffled: whether a client's examples are in random
    order, or in the order of the data.
    """

    kind: PartitionKind
    classes_per_client: int = 2
    alpha: float = 0.5
    min_size: int = 1
    shuffled: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        require(
            self.classes_per_client >= 1,
            "classes_per_client",
            self.classes_per_client,
            "at least 1",
        )
        require(0 < self.alpha <= 1e100, "alpha", self.alpha, "positive, at most 1e100 (the same)")
        require(self.min_size >= 1, "min_size", self.min_size, "at least 1")


def split(
    labels: Indices, num_clients: int, partition: Partition, *, generator: np.random.Generator
) -> list[Indices]:
    """Split examples over clients.

    Raises ConfigError when there are too few examples for `min_size`, or too few classes.
    """
    if len(labels) < num_clients * partition.min_size:
        raise ConfigError(
            f"{len(labels)} examples are too few for {num_clients} clients with min_size="
            f"{partition.min_size}; lower one of the two"
        )
    if partition.kind == "iid":
        parts = iid(len(labels), num_clients, generator=generator)
    elif partition.kind == "by_label":
        parts = by_label(labels, num_clients, partition.classes_per_client, generator=generator)
    elif partition.kind == "dirichlet":
        parts = dirichlet(
            labels, num_clients, partition.alpha, partition.min_size, generator=generator
        )
    else:
        parts = quantity_skew(
            len(labels), num_clients, partition.alpha, partition.min_size, generator=generator
        )
    smallest = min(map(len, parts))
    if smallest < partition.min_size:
        raise ConfigError(
            f"partition {partition.kind} leaves a client {smallest} examples, min_size="
            f"{partition.min_size}; lower num_clients or min_size"
        )
    return [generator.permutation(p) if partition.shuffled else np.sort(p) for p in parts]


def iid(count: int, num_clients: int, *, generator: np.random.Generator) -> list[Indices]:
    """Deal examples at random, sizes equal to within one."""
    return list(np.array_split(generator.permutation(count), num_clients))


def by_label(
    labels: Indices, num_clients: int, classes_per_client: int, *, generator: np.random.Generator
) -> list[Indices]:
    """Give every client `classes_per_client` classes, and a class's examples evenly to its clients.

    Client p of a random order takes a run of classes, of a random circle of classes, that begins at
    floor(p C / N): the numbers of clients of two classes differ as little as possible.
    """
    classes = np.unique(labels)
    if classes_per_client > len(classes):
        raise ConfigError(
            f"classes_per_client={classes_per_client} exceeds the {len(classes)} classes there are"
        )
    circle = generator.permutation(classes)
    order = generator.permutation(num_clients)
    owners: dict[int, list[int]] = {int(c): [] for c in classes}
    for place, client in enumerate(order.tolist()):
        first = place * len(classes) // num_clients
        for step in range(classes_per_client):
            owners[int(circle[(first + step) % len(classes)])].append(client)
    missing = [label for label, clients in owners.items() if not clients]
    if missing:
        warnings.warn(
            f"{num_clients} clients of {classes_per_client} classes hold"
            f" {len(owners) - len(missing)} of the {len(owners)} classes that are judged; nobody"
            f" has the classes {', '.join(map(str, sorted(missing)))}: raise the number of clients"
            " or classes_per_client",
            FedzoWarning,
            stacklevel=2,
        )
    parts: list[list[Indices]] = [[] for _ in range(num_clients)]
    for label, clients in owners.items():
        members = generator.permutation(np.flatnonzero(labels == label))
        for client, share in zip(
            clients, np.array_split(members, max(1, len(clients))), strict=False
        ):
            parts[client].append(share)
    return [np.concatenate(part) for part in parts]


def by_owner(owners: NDArray[Any], rows: Indices, num_clients: int) -> list[Indices]:
    """Return which of these rows of a table are each client's; clients go by their sorted names.

    owners: whose each row of the table is. Raises ConfigError for another number of clients, and
    for one who has none of the rows.
    """
    names = np.unique(owners)
    if len(names) != num_clients:
        raise ConfigError(
            f"scenario.client_column names {len(names)} clients and --clients is {num_clients};"
            f" set it to {len(names)}"
        )
    parts = [np.flatnonzero(owners[rows] == name) for name in names]
    for name, part in zip(names.tolist(), parts, strict=True):
        if len(part) == 0:
            raise ConfigError(
                f"scenario.client_column: none of the rows of {name!r} is among those that clients"
                " hold (others are held out); leave it out of the file, or add rows"
            )
    return parts


def dirichlet(
    labels: Indices,
    num_clients: int,
    alpha: float,
    min_size: int,
    *,
    generator: np.random.Generator,
) -> list[Indices]:
    """Split every class by Dirichlet shares, drawn again until each client has `min_size`.

    Raises ConfigError after 1,000 draws.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(1000):
        shares = generator.dirichlet([alpha] * num_clients, size=len(members))
        parts = _cut_all([generator.permutation(m) for m in members], shares)
        if min(map(len, parts)) >= min_size:
            return parts
    raise ConfigError(
        f"alpha={alpha} gave no split with min_size={min_size} for {num_clients} clients in 1000"
        " draws; raise alpha, or lower min_size or the number of clients"
    )


def quantity_skew(
    count: int, num_clients: int, alpha: float, min_size: int, *, generator: np.random.Generator
) -> list[Indices]:
    """Give clients Dirichlet(alpha) shares of random examples, on top of `min_size` each."""
    order = generator.permutation(count)
    base = np.array_split(order[: num_clients * min_size], num_clients)
    shares = generator.dirichlet([alpha] * num_clients)
    extra = _cut(order[num_clients * min_size :], shares)
    return [np.concatenate(pair) for pair in zip(base, extra, strict=True)]


def _cut_all(members: Sequence[Indices], shares: NDArray[np.float64]) -> list[Indices]:
    by_class = [_cut(rows, share) for rows, share in zip(members, shares, strict=True)]
    return [np.concatenate(parts) for parts in zip(*by_class, strict=True)]


def _cut(rows: Indices, shares: NDArray[np.float64]) -> list[Indices]:
    """Cut rows into consecutive parts whose sizes follow the shares."""
    ends = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
    return np.split(rows, ends)
