"""Partitions: disjoint, of the promised kind, by seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.data.partition import Partition, split

LABELS = np.arange(600) % 10


def parts(partition: Partition, clients: int, seed: int = 0, labels=LABELS):  # type: ignore[no-untyped-def]
    return split(labels, clients, partition, generator=stream(seed, "p"))


kinds = st.one_of(
    st.just(Partition(kind="iid")),
    st.builds(Partition, kind=st.just("by_label"), classes_per_client=st.integers(1, 10)),
    st.builds(Partition, kind=st.just("dirichlet"), alpha=st.floats(0.3, 100)),
    st.builds(Partition, kind=st.just("quantity_skew"), alpha=st.floats(0.1, 100)),
)


@settings(deadline=None)
@given(kinds, st.integers(1, 12), st.integers(0, 50))
def test_shards_are_disjoint_nonempty_and_repeatable(
    partition: Partition, clients: int, seed: int
) -> None:
    shards = parts(partition, clients, seed)
    together = np.concatenate(shards)
    assert len(shards) == clients
    assert len(np.unique(together)) == len(together)
    assert min(map(len, shards)) >= 1
    if partition.kind != "by_label":
        assert len(together) == len(LABELS)
    again = parts(partition, clients, seed)
    assert all(np.array_equal(a, b) for a, b in zip(shards, again, strict=True))


def test_iid_sizes_differ_by_one_at_most() -> None:
    sizes = [len(p) for p in parts(Partition(kind="iid"), 7)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("clients", "k"), [(10, 7), (100, 2), (5, 4), (20, 2)])
def test_by_label_gives_k_classes_a_client_and_balanced_classes(clients: int, k: int) -> None:
    shards = parts(Partition(kind="by_label", classes_per_client=k), clients)
    owned = [set(LABELS[shard].tolist()) for shard in shards]
    assert all(len(classes) == k for classes in owned)
    owners = [sum(label in classes for classes in owned) for label in range(10)]
    assert max(owners) - min(owners) <= 1
    assert sum(map(len, shards)) == len(LABELS)


def test_small_alpha_is_more_skewed() -> None:
    def imbalance(kind: str, alpha: float) -> float:
        shards = parts(Partition(kind=kind, alpha=alpha), 6)  # type: ignore[arg-type]
        if kind == "quantity_skew":
            return float(np.std([len(s) for s in shards]))
        return float(np.std([np.bincount(LABELS[s], minlength=10) for s in shards]))

    for kind in ("dirichlet", "quantity_skew"):
        assert imbalance(kind, 0.2) > 3 * imbalance(kind, 100.0)


def test_min_size_is_kept() -> None:
    for kind in ("dirichlet", "quantity_skew"):
        shards = parts(Partition(kind=kind, alpha=0.3, min_size=40), 6)  # type: ignore[arg-type]
        assert min(map(len, shards)) >= 40


def test_order_is_a_choice() -> None:
    ordered = parts(Partition(kind="iid", shuffled=False), 3)
    assert all(np.array_equal(shard, np.sort(shard)) for shard in ordered)
    assert not np.array_equal(parts(Partition(kind="iid"), 3)[0], ordered[0])


@pytest.mark.parametrize(
    ("partition", "clients", "message"),
    [
        (Partition(kind="iid", min_size=500), 2, "600 examples are too few for 2 clients"),
        (Partition(kind="by_label", classes_per_client=11), 2, "exceeds the 10 classes"),
        (Partition(kind="dirichlet", alpha=0.001, min_size=50), 10, "raise alpha"),
        (Partition(kind="by_label", classes_per_client=1, min_size=50), 12, "leaves a client"),
    ],
)
def test_impossible_splits_are_refused(partition: Partition, clients: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parts(partition, clients)


@pytest.mark.more
@pytest.mark.parametrize("alpha", [5e-324, 1e-100, 1e-5, 1e-3, 1e100])
@pytest.mark.parametrize("kind", ["dirichlet", "quantity_skew"])
def test_extreme_alpha_loses_nobody_or_is_refused(kind: str, alpha: float) -> None:
    """Few records and many clients: every record once and nobody without one, or a sentence."""
    for clients, count in ((1, 3), (3, 3), (5, 20), (20, 20)):
        labels = np.arange(count) % 2
        try:
            shards = parts(Partition(kind=kind, alpha=alpha), clients, labels=labels)  # type: ignore[arg-type]
        except ConfigError as error:
            refused = str(error)
            assert "lower min_size or the number of clients" in refused
            assert clients > 1
            continue
        assert sorted(np.concatenate(shards).tolist()) == list(range(count))
        assert min(map(len, shards)) >= 1


@pytest.mark.parametrize(
    "bad", [{"classes_per_client": 0}, {"alpha": 0.0}, {"alpha": 1e308}, {"min_size": 0}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Partition(kind="iid", **bad)  # type: ignore[arg-type]
