"""What a search pays for: calls of the function, the start first, no point of steps twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedzo
from fedzo import Choice, Float, Int, minimize
from fedzo.blackbox.charged import Charged
from fedzo.blackbox.evaluate import Answer
from fedzo.objectives.objective import CallableObjective


def bowl(x: Any) -> float:
    return float(np.square(np.asarray(x, dtype=float)).sum())


@pytest.mark.parametrize("method", ["auto", "fzoos", "fedzo", "cma", "random"])
def test_the_start_is_the_first_point_and_may_be_the_best(method: str) -> None:
    start = np.array([0.01, -0.02, 0.0, 1.0])
    bounds = [(-1.0, 1.0)] * 4
    result = minimize(bowl, x0=start, bounds=bounds, budget=9, method=method, seed=1)
    assert np.allclose(result.points[0], start, atol=1e-12)
    assert result.value <= bowl(start)


@pytest.mark.parametrize("method", ["auto", "cma", "random"])
def test_a_start_of_typed_variables_and_constraints_is_asked_too(method: str) -> None:
    start = {"a": 0.3, "n": 4, "kind": "blue"}
    bounds = {"a": Float(0, 1), "n": Int(1, 9), "kind": Choice("red", "blue")}
    result = minimize(
        lambda p: -p["n"], start, bounds, budget=5, method=method,
        constraints=[lambda p: p["n"] - 5],
    )  # fmt: skip
    assert result.points[0] == start


def test_without_a_start_the_middle_is_asked_first() -> None:
    result = minimize(bowl, bounds=[(250.0, 450.0), (0.0, 2.0)], budget=6, method="cma")
    assert np.allclose(result.points[0], [350.0, 1.0])


def test_points_that_are_not_allowed_are_free() -> None:
    calls = []
    result = minimize(
        lambda x: calls.append(x) or bowl(x), x0=[2.0, 2.0], budget=50,
        constraints=[lambda x: 1 - x[0]],
    )  # fmt: skip
    assert len(calls) == 50
    assert result.stop == "budget"
    assert int((result.violations > 0).sum()) == result.evaluations - 50 > 0


def test_a_search_without_an_allowed_point_ends() -> None:
    result = minimize(bowl, x0=[0.0, 0.0], budget=7, constraints=[lambda x: 1.0])
    assert (result.x, result.stop) == (None, "exhausted")


def test_a_point_of_steps_is_asked_once() -> None:
    calls: list[tuple[object, ...]] = []
    bounds = {"n": Int(1, 3), "kind": Choice("red", "blue")}

    def cost(p: dict[str, Any]) -> float:
        calls.append(tuple(p.values()))
        return p["n"] + (p["kind"] == "red")

    result = minimize(cost, bounds=bounds, budget=60, seed=2)
    assert len(calls) == len(set(calls)) <= 6
    assert result.value == 1
    assert result.stop == "exhausted"
    assert result.repeats == result.evaluations - len(calls) > 0
    assert f"{result.repeats} repeated" in repr(result)


def test_real_numbers_are_never_remembered() -> None:
    calls = []
    minimize(lambda x: calls.append(0) or 1.0, bounds=[(0.0, 1e-320)], budget=12, method="random")
    assert len(calls) == 12


def test_what_is_left_is_spent_in_order() -> None:
    def evaluate(points: list[int]) -> list[Answer]:
        return [Answer(float(point)) for point in points]

    charged = Charged(evaluate, (lambda p: p - 5, lambda p: -1 / p), lambda p: p, 2)
    told = charged([3, 9, 3, 4, 2, 0])
    values = [each and (each.reason or each.violation or each.value) for each in told]
    assert values == [3.0, 4.0, 3.0, 4.0, None, None]
    assert charged.repeats == 1
    failing = Charged(evaluate, (lambda p: -1 / p,), lambda p: p, 2)
    assert "ZeroDivisionError" in str(failing([0, 3, 4])[0])
    assert failing.left == 0
    assert charged.left == 0
    assert charged([3])[0] == Answer(3.0), "what is known stays known"


@pytest.mark.parametrize(
    "wrong", [lambda x: bool(x.sum() >= 1), lambda x: x >= 1, lambda x: [x[0] < 0, x[1] - 5]]
)
def test_a_constraint_is_a_number_and_no_truth(wrong: Any) -> None:
    with pytest.raises(fedzo.errors.RunError, match="return a number, at most 0 where the point"):
        minimize(bowl, x0=[2.0, 2.0], budget=50, constraints=[wrong])
    opt = fedzo.Optimizer(x0=[0.0, 0.0], constrained=True)
    points = opt.ask()
    with pytest.raises(fedzo.errors.ConfigError, match="at most 0 where it is allowed"):
        opt.tell(points, violations=[True] * len(points))


def test_a_search_that_is_interrupted_leaves_what_it_has_found() -> None:
    calls = []

    def f(x: np.ndarray) -> float:
        calls.append(x)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return bowl(x)

    with pytest.raises(KeyboardInterrupt) as stopped:
        minimize(f, x0=[1.0, 1.0], budget=99, method="cma")
    result = stopped.value.result  # type: ignore[attr-defined]
    assert result.stop == "interrupted"
    assert result.value < 2
    assert 10 < result.evaluations < 30


def test_an_objective_may_be_asked_by_several_workers(tmp_path: Path) -> None:
    objective = CallableObjective(function=bowl, dim=3, lower=-1.0, upper=2.0)
    alone = minimize(objective, budget=40, seed=3)
    many = minimize(objective, budget=40, seed=3, workers=3)
    assert np.array_equal(alone.points, many.points)
