"""Ask and tell: laws that hold for all methods, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedzo.blackbox.methods import METHODS
from fedzo.blackbox.optimizer import Optimizer
from fedzo.blackbox.variables import Choice, Float, Int, Log
from fedzo.errors import CheckpointError, ConfigError

D = 4
EACH = pytest.mark.parametrize("method", METHODS)
RANKED = pytest.mark.parametrize("method", ["cma", "random"])


def f(x: NDArray[np.float64]) -> float:
    return float(((x - 0.7) ** 2).sum() + 0.1 * x[0] ** 4)


def begun(method: str, budget: int | None = 60, **options: Any) -> Optimizer:
    return Optimizer([0.2] * D, (0, 1), method=method, budget=budget, **options)


def spend(opt: Optimizer, n: int | None = None) -> NDArray[np.float64]:
    while not opt.stop:
        points = opt.ask(n)
        opt.tell(points, [f(x) for x in points])
    found = opt.result().points
    assert isinstance(found, np.ndarray)
    return found


@EACH
@pytest.mark.parametrize("bounds", [(0, 1), (None, 0.5), (0.1, np.inf), None])
def test_points_are_inside_counted_and_improve(method: str, bounds: Any) -> None:
    opt = Optimizer([0.2] * D, bounds, method=method, budget=61, seed=3)
    points = spend(opt)
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    assert len(points) == opt.asked == opt.result().evaluations == 61
    assert opt.stop == "budget"
    assert (points >= (-np.inf if low is None else low)).all()
    assert (points <= high).all()
    result = opt.result()
    assert result.value == min(map(f, points)) == f(result.x)
    assert result.value < f(np.full(D, 0.2))


@EACH
def test_the_seed_makes_the_points_and_global_states_do_not_change(method: str) -> None:
    def states() -> tuple[str, list[int]]:
        return str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002

    before = states()
    first = spend(begun(method, seed=1))
    assert states() == before
    np.random.random(3)  # noqa: NPY002
    assert np.array_equal(first, spend(begun(method, seed=1)))
    assert not np.array_equal(first, spend(begun(method, seed=2)))


@EACH
def test_portions_and_order_do_not_matter(method: str) -> None:
    whole = spend(begun(method))
    opt = begun(method)
    while not opt.stop:
        batch = opt.ask()
        for part in (batch[1::2], batch[::-2] if len(batch) % 2 else batch[-2::-2]):
            if len(part):
                opt.tell(part, [f(x) for x in part])
    assert np.array_equal(whole, opt.result().points)


@pytest.mark.more
@EACH
@pytest.mark.parametrize("at", [1, 23, 47])
def test_a_loaded_search_goes_on_at_the_same_bits(method: str, at: int, tmp_path: Path) -> None:
    opt = begun(method, parallel=3)
    while opt.asked < at:
        points = opt.ask(2)
        opt.tell(points, [f(x) for x in points])
    under_way = opt.ask(3)
    opt.tell(under_way[1:2], failures="lost")
    opt.save(tmp_path / "search")
    again = Optimizer.load(tmp_path / "search")
    for one in (opt, again):
        one.tell(under_way[[2, 0]], [f(x) for x in under_way[[2, 0]]])
        spend(one, 2)
    a, b = opt.result(), again.result()
    assert np.array_equal(a.points, b.points)
    assert np.array_equal(a.values, b.values, equal_nan=True)
    assert (a.value, a.why, a.stop, a.first_failure) == (b.value, b.why, b.stop, "lost")


def test_a_mixed_search_is_loaded_too(tmp_path: Path) -> None:
    bounds = {"lr": Log(1e-4, 1), "n": Int(1, 5), "c": Choice("a", "b", True)}
    start = {"lr": 1e-2, "n": np.int64(2), "c": True}
    opt = Optimizer(start, bounds, budget=40, seed=2)
    points = opt.ask()
    opt.tell(points, [p["lr"] + p["n"] for p in points])
    opt.save(tmp_path / "search")
    assert Optimizer.load(tmp_path / "search").ask() == opt.ask()


@EACH
def test_failures_are_tolerated_everywhere(method: str) -> None:
    opt = begun(method, 80, seed=5)
    while not opt.stop:
        points = opt.ask()
        values = [None if x[0] > 0.75 else np.nan if x[1] < 0.15 else f(x) for x in points]
        opt.tell(points, values)
    result = opt.result()
    assert result.evaluations == 80
    assert np.isfinite(result.value)
    assert result.failures == np.isnan(result.values).sum()


@EACH
def test_a_start_that_fails_does_not_end_the_search(method: str) -> None:
    opt = begun(method, 60, seed=1)
    while not opt.stop:
        points = opt.ask()
        opt.tell(points, [None if opt.asked < 3 else f(x) for x in points])
    assert np.isfinite(opt.result().value)


@EACH
def test_more_points_than_a_batch_has(method: str) -> None:
    opt = begun(method, 70, seed=1)
    points = opt.ask(40)
    assert len(points) == 40
    more = opt.ask(20)
    opt.tell(np.concatenate([more, points]), [f(x) for x in np.concatenate([more, points])])
    assert opt.best_value == min(map(f, [*more, *points]))
    assert len(opt.ask(40)) == 10
    assert not opt.stop


@RANKED
def test_rankings_are_enough_for_some(method: str) -> None:
    opt = begun(method, 300, parallel=8, seed=1)
    while not opt.stop:
        points = opt.ask()
        if len(points) < 8:
            opt.tell(points, failures="left over")
            continue
        opt.tell(points, ranking=np.argsort([f(x) for x in points]).tolist())
    result = opt.result()
    assert np.isnan(result.value)
    assert f(result.x) < f(np.full(D, 0.2))


def test_ranks_and_values_of_the_same_order_give_cma_the_same_points() -> None:
    by_rank, by_value = begun("cma", 24), begun("cma", 24)
    for _ in range(3):
        points = by_rank.ask()
        assert np.array_equal(points, by_value.ask())
        by_rank.tell(points, ranking=np.argsort([f(x) for x in points]).tolist())
        by_value.tell(points, [f(x) for x in points])


def test_what_tell_refuses_changes_nothing() -> None:
    opt = begun("cma")
    points = opt.ask()
    for told, arguments in [
        ("exactly one", {}),
        ("exactly one", {"values": [1.0] * len(points), "failures": "no"}),
        ("2 entries for", {"values": [1.0, 2.0]}),
        ("one real number a point", {"values": ["1"] * len(points)}),
        ("failures has 1", {"failures": ["no"]}),
        ("must hold each of", {"ranking": [0] * len(points)}),
    ]:
        with pytest.raises(ConfigError, match=told):
            opt.tell(points, **arguments)
    with pytest.raises(ConfigError, match="not under way"):
        opt.tell([[9.0] * D], [1.0])
    with pytest.raises(ConfigError, match="not under way"):
        opt.tell([points[0], points[0]], [1.0, 1.0])
    with pytest.raises(ConfigError, match="it has 4 numbers"):
        opt.tell([[9.0]], [1.0])
    with pytest.raises(ConfigError, match="whole batch"):
        opt.tell(points[:2], ranking=[0, 1])
    with pytest.raises(ConfigError, match="under way: tell"):
        opt.ask()
    assert opt.result().evaluations == 0
    opt.tell(points, [f(x) for x in points])
    with pytest.raises(ConfigError, match="values were told"):
        opt.tell(opt.ask(), ranking=list(range(len(points))))
    slopes = begun("fzoos")
    with pytest.raises(ConfigError, match="needs values"):
        slopes.tell(slopes.ask(), ranking=[0])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"method": "cmaes"}, "did you mean cma"),
        ({"method": "cma("}, "not understood"),
        ({"method": "cma(popsize=2)"}, "popsize"),
        ({"method": "cma(size=2)"}, "unknown setting cma.size"),
        ({"method": "auto(x=1)"}, "auto has no options"),
        ({"method": "fzoos(max_rows=0)"}, "max_rows"),
        ({"budget": 0}, "budget=0 must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1"),
        ({"parallel": True}, "parallel=True"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Optimizer([0.0], **arguments)


@pytest.mark.parametrize("method", ["fzoos", "fedzo"])
def test_slopes_of_whole_numbers_are_refused(method: str) -> None:
    with pytest.raises(ConfigError, match="needs slopes"):
        Optimizer(bounds=[Int(1, 3)], method=method)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    from fedzo.records.tensor_file import write_tensors

    write_tensors(tmp_path / "other", {"a": torch.zeros(1)}, "{}")
    with pytest.raises(CheckpointError, match="holds no saved search"):
        Optimizer.load(tmp_path / "other")
    with pytest.raises(CheckpointError, match="no such file"):
        Optimizer.load(tmp_path / "missing")
    opt = begun("random")
    opt.save(tmp_path / "search")
    damaged = bytearray((tmp_path / "search").read_bytes())
    damaged[-3] ^= 1
    (tmp_path / "search").write_bytes(damaged)
    with pytest.raises(CheckpointError):
        Optimizer.load(tmp_path / "search")


@pytest.mark.parametrize("budget", [70, 71, 72, 141, 142])
def test_the_first_of_a_few_does_not_replace_the_first_of_many(budget: int) -> None:
    opt = Optimizer([0.0, 0.0, 0.0], method="cma", budget=budget, seed=0)
    last_whole = None
    while not opt.stop:
        points = opt.ask()
        order = np.argsort([f(x) for x in points])
        if len(points) == 7:
            last_whole = points[order[0]]
        opt.tell(points, ranking=order.tolist())
    assert np.array_equal(opt.result().x, last_whole)


def test_one_point_has_no_ranking() -> None:
    opt = begun("random", 20)
    with pytest.raises(ConfigError, match="one point has no ranking; ask for several"):
        opt.tell(opt.ask(), ranking=[0])


def test_points_of_other_types_are_known_again() -> None:
    """A table of pandas or an array of numpy makes 95.0 or np.int64(95) of 95."""
    bounds = {"n": Int(1, 90), "r": Float(0, 1), "c": Choice("x", "y"), "k": Choice(1, True, 8)}
    opt = Optimizer(bounds=bounds, budget=12, seed=0)
    turned = [
        {
            "n": float(x["n"]) if i % 2 else np.int64(x["n"]),
            "r": np.float64(x["r"]),
            "c": np.str_(x["c"]),
            "k": 8.0 if x["k"] == 8 else x["k"],
        }
        for i, x in enumerate(opt.ask(8))
    ]
    opt.tell(turned[::-1], [1.0] * 8)
    assert opt.result().evaluations == 8
    assert all(type(x["n"]) is int for x in opt.result().points)
    (x,) = opt.ask(1)
    for other in ({**x, "n": x["n"] + 0.5}, {**x, "n": str(x["n"])}, {**x, "n": True}):
        with pytest.raises(ConfigError, match="not under way"):
            opt.tell([other], [1.0])
    with pytest.raises(ConfigError, match=r"is one point; tell it as \[point\]"):
        opt.tell(x, 1.0)
    with pytest.raises(ConfigError, match=r"x0=.* has names.*bounds=\{...\}"):
        Optimizer(bounds)
