"""One call: ends, failures, workers, typed variables, objectives."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import fedzo
from fedzo.blackbox.minimize import minimize
from fedzo.blackbox.result import Result
from fedzo.blackbox.variables import Choice, Int, Log
from fedzo.errors import ConfigError, RunError
from fedzo.objectives.objective import TorchObjective


def bowl(x: NDArray[np.float64]) -> float:
    return float(((x - 1) ** 2).sum())


def test_the_face_has_it() -> None:
    assert fedzo.minimize is minimize
    assert {"minimize", "Optimizer", "Choice", "Float", "Int", "Log"} <= set(dir(fedzo))
    with pytest.raises(AttributeError, match="nothing_of_it"):
        _ = fedzo.nothing_of_it


def test_a_smooth_function_is_solved_and_what_has_searched_is_said() -> None:
    result = minimize(bowl, [0.0] * 5, budget=300)
    assert result.value < 1e-9
    assert "fzoos, because all coordinates are real" in result.why
    assert "then cma from the best point, because" in result.why
    assert result.why in repr(result)
    assert "<table>" in result._repr_html_()


def test_typed_variables_are_found() -> None:
    def f(p: dict[str, Any]) -> float:
        return (math.log10(p["lr"]) + 2) ** 2 + abs(p["n"] - 3) + (p["act"] != "tanh")

    bounds = {"lr": Log(1e-5, 1), "n": Int(1, 8), "act": Choice("relu", "tanh", "gelu")}
    result = minimize(f, bounds=bounds, budget=300, seed=1)
    assert (result.x["n"], result.x["act"]) == (3, "tanh")
    assert result.x["lr"] == pytest.approx(1e-2, rel=0.1)
    assert "cma, because 4 of 5 coordinates move in steps" in result.why


def test_it_ends_early_where_that_is_asked_for() -> None:
    result = minimize(bowl, [0.0] * 3, budget=500, target=1e-3)
    assert (result.stop, result.value <= 1e-3) == ("target", True)
    assert result.evaluations < 500
    seen: list[Result] = []
    ended = minimize(
        bowl,
        [0.0],
        budget=500,
        callback=lambda r: seen.append(r) or len(seen) == 3,  # type: ignore[func-returns-value]
    )
    assert (ended.stop, len(seen)) == ("callback", 3)
    alone = minimize(bowl, [0.0] * 3, budget=5000, method="fzoos")
    assert "line search has failed" in alone.stop or "steps have shrunk" in alone.stop
    assert alone.evaluations < 5000


def test_a_function_that_sometimes_raises_is_minimized() -> None:
    def f(x: NDArray[np.float64]) -> float:
        if x[0] > 0.8:
            raise ValueError("the simulator has diverged")
        return bowl(x)

    result = minimize(f, [0.0, 0.0], budget=100, method="cma")
    assert result.evaluations == 100
    assert 0 < result.failures < 60
    assert result.first_failure == "ValueError: the simulator has diverged"
    assert result.value < 0.1


def test_a_broken_function_ends_the_search_with_its_reason() -> None:
    def broken(x: NDArray[np.float64]) -> float:
        return undefined  # type: ignore[name-defined,no-any-return] # noqa: F821

    with pytest.raises(RunError, match="NameError: name 'undefined'"):
        minimize(broken, [0.0], budget=100)
    few = minimize(broken, [0.0], budget=5)
    assert (few.x, few.value) == (None, math.inf)
    assert "no evaluation has succeeded" in repr(few)


def test_the_users_function_cannot_change_our_points() -> None:
    def f(x: NDArray[np.float64]) -> float:
        value = bowl(x)
        x[:] = 9.0
        return value

    result = minimize(f, [0.0] * 3, budget=40)
    assert np.array_equal(result.points, minimize(bowl, [0.0] * 3, budget=40).points)


@pytest.mark.parametrize("run_in", ["threads", "processes"])
def test_workers_do_not_change_the_points(run_in: Any) -> None:
    alone = minimize(bowl, [0.0] * 4, budget=60, seed=2)
    many = minimize(lambda x: bowl(x), [0.0] * 4, budget=60, seed=2, workers=2, run_in=run_in)
    assert np.array_equal(alone.points, many.points)
    assert np.array_equal(alone.values, many.values)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_ray_does_not_change_the_points() -> None:
    alone = minimize(bowl, [0.0] * 4, budget=30, seed=2)
    many = minimize(
        lambda x: float(((x - 1) ** 2).sum()), [0.0] * 4, budget=30, seed=2, workers=2, run_in="ray"
    )
    assert np.array_equal(alone.points, many.points)
    assert np.array_equal(alone.values, many.values)


def test_batched_functions_and_objectives_give_the_same() -> None:
    alone = minimize(bowl, [0.0] * 4, [(-2, 3)] * 4, budget=60)
    batched = minimize(
        lambda x: ((x - 1) ** 2).sum(-1), [0.0] * 4, [(-2, 3)] * 4, budget=60, batched=True
    )
    objective = TorchObjective(
        function=lambda x: (x - 1).square().sum(-1), dim=4, lower=-2.0, upper=3.0
    )
    asked = minimize(objective, torch.zeros(4), budget=60)
    assert np.allclose(alone.points, batched.points)
    assert np.allclose(alone.points, asked.points)
    assert minimize(objective, budget=30).points[0].tolist() == [0.5] * 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"workers": 0}, "workers=0"),
        ({"workers": 2, "batched": True}, "no effect"),
        ({"f": lambda x: "text"}, "one real number"),
        ({"f": lambda x: [1.0, 2.0], "batched": True}, "2 entries for 1 points"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        minimize(**{"f": bowl, "x0": [0.0], "budget": 10, **arguments})


CORNERS = {
    "a steep line": (3, lambda x: float(x @ np.array([1, 1, 1e4])), -10002.0),
    "a bowl beside it": (3, lambda x: float(1e3 * x[0] + ((x[1:] - 0.5) ** 2).sum()), -1e3),
    "half of them at a bound": (
        20, lambda x: float(100 * x[:10].sum() + ((x[10:] - 0.5) ** 2).sum()), -1e3
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CORNERS)
def test_a_steep_coordinate_on_a_bound_does_not_stop_the_others(name: str) -> None:
    dim, function, lowest = CORNERS[name]
    found = minimize(function, bounds=[(-1, 3)] * dim, budget=300)
    assert found.value - lowest < 1e-5, "it was 0.2 to 4"


def test_no_point_of_a_failed_trial_is_asked_again() -> None:
    dim = 34
    found = minimize(lambda x: float(x @ x), bounds=[(-2, 3)] * dim, budget=28 * dim)
    assert len({point.tobytes() for point in found.points}) > 0.98 * len(found.points)


def test_huge_values_end_in_no_warning_and_options_that_are_alike_are_told_apart() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        minimize(lambda x: 1e300 * float(x @ x), bounds=[(-1, 1)] * 2, budget=40, method="random")
    kinds = Choice(1, True)
    assert kinds.value(kinds.coordinates(True)) is True
    assert kinds.value(kinds.coordinates(np.int64(1))) == 1
