"""What clients keep of their queries: bounded, newest first to stay, no point twice."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.randomness import stream
from fedzo.surrogates.trajectory import Trajectory, load_trajectory

N, D = 2, 3
BATCHES = st.lists(st.integers(1, 5), min_size=1, max_size=5)


def empty(capacity: int, n: int = N) -> Trajectory:
    return load_trajectory([{}] * n, D, capacity)


def normals(*shape: int, seed: int = 0, key: str = "x") -> torch.Tensor:
    return torch.from_numpy(stream(seed, key).standard_normal(shape))


def rows(trajectory: Trajectory, i: int) -> list[tuple[float, ...]]:
    """Return client i's points and values as tuples, oldest first."""
    table = torch.cat([trajectory.points[i], trajectory.values[i].unsqueeze(1)], dim=1)
    return [tuple(row) for row in table[trajectory.known[i]].tolist()]


def uneven() -> Trajectory:
    """Return clients with 0, 2 and 5 queries."""
    points, values = normals(3, 5, D), normals(3, 5, key="y")
    states = [
        {},
        {"points": points[1, :2], "values": values[1, :2]},
        {"points": points[2], "values": values[2]},
    ]
    return load_trajectory(states, D, capacity=10)


@given(sizes=BATCHES, capacity=st.integers(1, 12), seed=st.integers(0, 1000))
def test_the_newest_stay_within_the_capacity(sizes: list[int], capacity: int, seed: int) -> None:
    trajectory = empty(capacity)
    asked: list[list[tuple[float, ...]]] = [[] for _ in range(N)]
    for number, q in enumerate(sizes):
        points = normals(N, q, D, seed=seed, key=f"points {number}")
        values = normals(N, q, seed=seed, key=f"values {number}")
        trajectory = trajectory.add(points, values)
        for i in range(N):
            asked[i] += [
                (*p, v) for p, v in zip(points[i].tolist(), values[i].tolist(), strict=True)
            ]
    assert trajectory.points.shape[1] <= capacity
    for i in range(N):
        assert rows(trajectory, i) == asked[i][-capacity:]


@given(order=st.lists(st.integers(0, 4), min_size=1, max_size=15), capacity=st.integers(1, 6))
def test_a_point_asked_again_has_its_newest_value_alone(order: list[int], capacity: int) -> None:
    """Against a dict in order of the last question; points differ in the last coordinate only."""
    places = torch.zeros(5, 7, dtype=torch.float64)
    places[:, -1] = torch.arange(5)
    trajectory = load_trajectory([{}], 7, capacity)
    expected: dict[int, float] = {}
    for value, which in enumerate(order):
        trajectory = trajectory.add(
            places[which].reshape(1, 1, 7), torch.full((1, 1), float(value), dtype=torch.float64)
        )
        expected.pop(which, None)
        expected[which] = float(value)
        expected = dict(list(expected.items())[-capacity:])
    assert trajectory.points[0, :, -1].tolist() == list(expected)
    assert trajectory.values[0].tolist() == list(expected.values())


def test_only_the_client_that_asks_again_loses_the_old_value() -> None:
    points, values = normals(N, 3, D), normals(N, 3, key="y")
    again = normals(N, 1, D, seed=1)
    again[0, 0] = points[0, 1]
    after = empty(10).add(points, values).add(again, torch.full((N, 1), 7.0, dtype=torch.float64))
    assert after.count.tolist() == [3, 4]
    assert after.values[0, :3].tolist() == [values[0, 0].item(), values[0, 2].item(), 7.0]
    assert after.values[1].tolist() == [*values[1].tolist(), 7.0]


def test_a_point_twice_in_one_batch_has_its_newest_value_alone() -> None:
    """Two queries beyond the same corner of the box are one point."""
    points = normals(N, 1, D).expand(N, 2, D)
    after = empty(10).add(points, torch.tensor([[1.0, 2.0]] * N, dtype=torch.float64))
    assert [rows(after, i) for i in range(N)] == [[(*points[i, 1].tolist(), 2.0)] for i in range(N)]


def test_adding_leaves_the_old_trajectory_as_it_was() -> None:
    before = empty(4).add(normals(N, 3, D), normals(N, 3, key="y"))
    points, values = before.points.clone(), before.values.clone()
    before.add(before.points[:, :2], before.values[:, :2] + 1)
    assert torch.equal(before.points, points)
    assert torch.equal(before.values, values)


@given(seed=st.integers(0, 1000), size=st.integers(1, 8))
def test_nearest_is_brute_force(seed: int, size: int) -> None:
    trajectory, x = uneven(), normals(3, D, seed=seed, key="near")
    found = trajectory.nearest(x, size)
    assert found.points.shape[1] == min(size, 5)
    for i in range(3):
        mine = rows(trajectory, i)
        center = x[i].tolist()
        mine.sort(key=lambda row: sum((a - b) ** 2 for a, b in zip(row, center, strict=False)))
        chosen = torch.cat([found.points[i], found.values[i].unsqueeze(1)], dim=1)
        chosen = chosen[found.known[i]]
        assert sorted(map(tuple, chosen.tolist())) == sorted(mine[:size])


def test_saved_clients_of_different_sizes_load_the_same() -> None:
    trajectory = uneven()
    states = trajectory.save([{"x": torch.ones(D)}, {}, {}])
    assert [len(state["values"]) for state in states] == [0, 2, 5]
    assert torch.equal(states[0]["x"], torch.ones(D))
    again = load_trajectory(states, D, capacity=10)
    assert again.count.tolist() == [0, 2, 5]
    assert torch.equal(again.points, trajectory.points)
    assert torch.equal(again.values, trajectory.values)
    assert torch.equal(again.known, trajectory.known)


def test_a_state_follows_its_client() -> None:
    """Clients loaded in another order, or with others, have what they had."""
    states = uneven().save([{}, {}, {}])
    swapped = load_trajectory([states[2], {}, states[1]], D, capacity=10)
    for place, client in enumerate([2, 0, 1]):
        assert rows(swapped, place) == rows(uneven(), client)


def test_saving_replaces_what_the_state_held() -> None:
    old = uneven()
    grown = old.add(normals(3, 1, D, seed=9), normals(3, 1, seed=9, key="y"))
    states = grown.save(old.save([{}, {}, {}]))
    assert [len(state["points"]) for state in states] == [1, 3, 6]


def test_clients_without_queries_have_no_known_rows() -> None:
    nobody = empty(5)
    assert nobody.count.tolist() == [0] * N
    assert nobody.nearest(normals(N, D), 4).known.shape == (N, 0)
    assert not replace(uneven(), count=torch.zeros(3, dtype=torch.int64)).known.any()
