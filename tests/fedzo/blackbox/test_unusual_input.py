"""What people also type and return: an answer, or one sentence before anything is spent."""

import copy
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedzo
from fedzo.blackbox.variables import Float, Log
from fedzo.errors import CheckpointError, ConfigError
from fedzo.objectives.objective import CallableObjective
from fedzo.records.tensor_file import read_tensors, write_tensors


def absolute(x: Any) -> float:
    return float(np.abs(x).sum())


def square(x: Any) -> Any:
    return x[0] ** 2


@pytest.mark.more
@pytest.mark.parametrize("method", ["auto", "cma"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "kind", [fedzo.Int(0, 1), fedzo.Int(1, 100), fedzo.Log(1e-3, 1.0), fedzo.Float(0.0, 1.0)]
)
def test_one_variable_is_enough(kind: Any, seed: int, method: str) -> None:
    found = fedzo.minimize(
        lambda p: abs(p["n"] - 0.6), bounds={"n": kind}, budget=60, seed=seed, method=method
    )
    calls = found.evaluations - found.repeats
    assert calls == (2 if kind == fedzo.Int(0, 1) else 60)
    assert found.value <= 0.4


@pytest.mark.more
@pytest.mark.parametrize("method", ["auto", "cma", "fzoos", "random"])
def test_a_coordinate_whose_box_holds_one_number_stays_there(method: str) -> None:
    box = [(-3, 3), (-3, 3), (2, 2)]
    found = fedzo.minimize(absolute, x0=[1.0, 2.0, 2.0], bounds=box, budget=600, method=method)
    assert found.evaluations == 600 or method == "fzoos"
    assert set(np.asarray(found.points)[:, 2]) == {2.0}
    assert found.value < (2.5 if method == "random" else 2.01)


def test_a_box_of_one_point_is_that_point() -> None:
    found = fedzo.minimize(absolute, bounds=[(1, 1), (0, 0)], budget=20, method="cma")
    assert found.x.tolist() == [1, 0]


@pytest.mark.parametrize("method", ["auto", "fzoos", "cma"])
def test_a_loaded_search_goes_on_at_the_same_bits_wherever_the_file_put_it(
    method: str, tmp_path: Path
) -> None:
    """The longer the reason of a failure, the further back the tensors lie in the file."""
    for length in range(1, 65, 9):
        opt = fedzo.Optimizer(x0=[0.0, 1.0, 2.0, 3.0], method=method)
        for i in range(2):
            points = opt.ask()
            if i == 0:
                opt.tell(opt.ask(1), failures="x" * length)
            opt.tell(points, [absolute(x) for x in points])
        opt.save(tmp_path / "search")
        assert np.array_equal(opt.ask(), fedzo.Optimizer.load(tmp_path / "search").ask())


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (torch.ones(1, requires_grad=True) * float(x[0]) ** 2).sum(),
        lambda x: np.array([x[0] ** 2]),
        lambda x: 10**400 if x[0] > 0.5 else float(x[0] ** 2),
        lambda x: torch.tensor([x[0] ** 2]),
        lambda x: torch.tensor([x[0] ** 2]).bfloat16(),
        lambda x: np.ma.masked_greater(np.array([x[0] ** 2]), 0.5).mean(),
    ],
)
def test_values_of_many_kinds_are_numbers(f: Callable[[Any], Any]) -> None:
    assert fedzo.minimize(f, x0=[1.0], budget=40).value < 0.01


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"bounds": {}}, "names no variable"),
        ({"bounds": {1: (0, 1)}}, "the name 1 is no text"),
        ({"bounds": [(-1e308, 1e308)]}, "further apart than a float64"),
        ({"bounds": {"a": (-1e308, 1e308)}}, "further apart than a float64"),
        ({"x0": [1.0], "target": "a"}, "target='a' must be a number"),
        ({"x0": [1.0], "target": float("nan")}, "target=nan must be a number"),
        ({"x0": [1.0], "callback": 3}, "callback=3 must be a function"),
        ({"x0": [1.0], "batched": True}, "returns a value for each"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_sentence(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        fedzo.minimize(lambda x: 1.0, budget=10, **given)


def test_what_is_masked_is_no_value() -> None:
    opt = fedzo.Optimizer(x0=[0.0, 0.0], method="cma", parallel=4)
    points = opt.ask(4)
    opt.tell(points, np.ma.masked_greater(np.array([3.0, 1.0, 9.0, 2.0]), 2.5))
    assert opt.result().value == 1.0
    assert opt.result().failures == 2
    asked = CallableObjective(function=lambda x: np.ma.masked, dim=1)
    assert asked.value(torch.zeros(2, 1)).isnan().all()


def test_half_precision_is_taken_everywhere() -> None:
    half = torch.tensor([1.0, -1.0], dtype=torch.bfloat16)
    box = torch.tensor([[-2.0, 2.0]] * 2, dtype=torch.bfloat16)
    found = fedzo.minimize(
        lambda x: torch.tensor(x).bfloat16().square().sum(),
        x0=half, bounds=box, budget=40, constraints=lambda x: torch.tensor(x[0] - 1).bfloat16(),
    )  # fmt: skip
    assert found.value < 0.5
    opt = fedzo.Optimizer(x0=half, constrained=True, step=np.float32(0.5))
    points = opt.ask(2)
    opt.tell(points, values=half, violations=torch.zeros(2, dtype=torch.bfloat16))
    assert opt.result().value == -1.0


@pytest.mark.parametrize("method", ["auto", "cma", "fzoos", "random"])
def test_a_copy_of_a_search_leaves_it_as_it_is(method: str) -> None:
    def points_of(opt: fedzo.Optimizer) -> Any:
        while not opt.stop:
            points = opt.ask()
            opt.tell(points, [float(((x - 1) ** 2).sum()) for x in points])
        return opt.result().points

    opt = fedzo.Optimizer(x0=[0.0, 0.0, 3.0], method=method, budget=60, seed=1)
    points = opt.ask()
    opt.tell(points, [float(((x - 1) ** 2).sum()) for x in points])
    again = points_of(copy.deepcopy(opt))
    assert np.array_equal(points_of(opt), again)


def test_a_wide_range_of_powers_has_its_places() -> None:
    power = Log(1e-300, 1e300)
    assert power.coordinates(1.0) == pytest.approx([0.5])
    assert power.value(power.coordinates(1e-5)) == pytest.approx(1e-5)
    assert Log(1e300, 1e300 * (1 + 1e-14)).coordinates(1e300) == [0.0]
    with pytest.raises(ConfigError, match="both ends must be finite numbers"):
        Float(-(10**400), 10**400)


@pytest.mark.parametrize(
    "answers",
    [
        {"ranking": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]},
        {"ranking": "abcdef"},
        {"ranking": 3},
        {"failures": 3},
        {"failures": True},
        {"failures": [None] * 6},
        {"values": 3.0},
    ],
)
def test_what_does_not_fit_the_points_changes_nothing(answers: dict[str, Any]) -> None:
    opt = fedzo.Optimizer(x0=[0.0, 1.0], method="cma", budget=12)
    points = opt.ask()
    with pytest.raises(ConfigError):
        opt.tell(points, **answers)
    with pytest.raises(ConfigError, match="are no points"):
        opt.tell(None, [1.0])
    opt.tell(points, ranking=list(range(len(points))))
    assert opt.result().evaluations == len(points)


def test_numbers_of_numpy_make_variables_and_tensors_make_bounds() -> None:
    ends: Any = np.int64(0), np.int64(3)
    assert fedzo.Int(*ends) == fedzo.Int(0, 3)
    assert fedzo.Choice(np.int64(1), np.int64(2)) == fedzo.Choice(1, 2)
    with pytest.raises(ConfigError, match="no text, number or boolean"):
        fedzo.Choice([1], [2])
    bounds = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert fedzo.minimize(absolute, bounds=bounds, budget=10).points.shape == (10, 2)


def test_a_search_shows_itself() -> None:
    opt = fedzo.Optimizer(x0=[0.0, 1.0], budget=50)
    points = opt.ask()
    opt.tell(points, [absolute(x) for x in points])
    assert f"{len(points)} points" in repr(opt)
    assert "<table>" in opt._repr_html_()


@pytest.mark.parametrize(
    "one", [torch.tensor(1.0), np.array(1.0), [1.0], (1.0,), range(1, 2), deque([1.0]), 1.0]
)
def test_one_value_may_come_as_anything_that_holds_one(one: Any) -> None:
    opt = fedzo.Optimizer(x0=[0.0, 1.0], method="random")
    opt.tell(opt.ask(1), one)
    assert opt.best_value == 1.0


@pytest.mark.parametrize(
    "told", [torch.arange(6), np.arange(6), [torch.tensor(i) for i in range(6)]]
)
def test_a_ranking_may_be_a_tensor(told: Any) -> None:
    opt = fedzo.Optimizer(x0=[0.0, 1.0], method="cma")
    opt.tell(opt.ask(), ranking=told)
    assert opt.result().evaluations == 6


@pytest.mark.parametrize(
    "target", [np.float32(0.1), np.int64(1), torch.tensor(0.1), Fraction(1, 10)]
)
def test_a_target_is_whatever_is_a_number(target: Any) -> None:
    assert fedzo.minimize(square, x0=[3.0], budget=200, target=target).stop == "target"


@pytest.mark.parametrize("gathered", [list, tuple, iter, deque, torch.stack])
def test_a_batch_may_come_in_anything_that_holds_values(gathered: Callable[[Any], Any]) -> None:
    weight = torch.ones((), requires_grad=True)
    found = fedzo.minimize(
        lambda points: gathered([weight * float(p[0]) ** 2 for p in points]),
        x0=[1.0],
        budget=40,
        batched=True,
    )
    assert found.value < 0.01


def test_a_search_that_would_go_on_otherwise_is_refused(tmp_path: Path) -> None:
    """Version 1 searched a single number without the coordinate that nobody sees."""
    start, line = "cma did not ask the start", "auto looked along no line"
    for method, x0, refused in (
        ("cma", [0.5], start), ("random", [0.5, 0.5], ""), ("auto", [0.5], line),
    ):  # fmt: skip
        opt = fedzo.Optimizer(x0=x0, method=method)
        opt.tell(opt.ask(), [1.0] * opt.asked)
        opt.save(tmp_path / "search")
        tensors, facts = read_tensors(tmp_path / "search")
        write_tensors(
            tmp_path / "search", tensors, facts.replace('"version": 5', '"version": 1', 1)
        )
        if refused:
            with pytest.raises(CheckpointError, match=refused):
                fedzo.Optimizer.load(tmp_path / "search")
        else:
            assert np.array_equal(fedzo.Optimizer.load(tmp_path / "search").ask(), opt.ask())
