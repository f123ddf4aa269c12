"""What functions, constraints and callbacks do and say: to their points, to the search's end."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedzo import Choice, Float, Int, Log, Optimizer, minimize
from fedzo.errors import ConfigError, RunError


def square(x: Any) -> float:
    return float((np.asarray(x) ** 2).sum())


SWAPPED = {"n": Int(0, 1), "m": Int(0, 1)}


def swapping(point: dict[str, int]) -> float:
    value = (point["n"] - 2) ** 2 + 5 * (point["m"] - 1) ** 2
    point["n"], point["m"] = point["m"], point["n"]
    return float(value)


@pytest.mark.parametrize("how", ["alone", "threads", "batched", "constraint"])
def test_what_functions_do_to_their_points_stays_with_them(how: str) -> None:
    told: dict[str, Any] = {"bounds": SWAPPED, "budget": 8, "method": "random", "parallel": 8}
    for seed in range(12):
        if how == "batched":
            result = minimize(lambda ps: [swapping(p) for p in ps], batched=True, seed=seed, **told)
        elif how == "constraint":
            limits = [lambda p: -abs(swapping(p)), lambda p: p.pop("n") - 5]
            result = minimize(swapping, constraints=limits, seed=seed, **told)
        else:
            workers = 3 if how == "threads" else 1
            result = minimize(swapping, workers=workers, seed=seed, **told)
        assert result.failures == 0
        assert result.value == swapping(dict(result.x))


@pytest.mark.parametrize("budget", [1, 5, 7, 20, 100])
def test_rankings_are_taken_of_a_batch_that_the_budget_cuts(budget: int) -> None:
    search = Optimizer(x0=np.zeros(3), method="cma", budget=budget, seed=0)
    while not search.stop:
        points = search.ask()
        order = np.argsort([((x - 1) ** 2).sum() for x in points])
        search.tell(points, ranking=order.tolist())
    assert (search.asked, search.stop) == (budget, "budget")
    assert search.result().x is not None


@pytest.mark.parametrize("true", [True, np.bool_(True), np.array(True), torch.tensor(True)])
def test_callbacks_end_a_search_by_any_truth(true: Any) -> None:
    result = minimize(square, [1.0, 1.0], budget=40, callback=lambda _: true)
    assert result.stop == "callback"


@pytest.mark.parametrize(
    "other", [None, np.bool_(False), "yes", 1, [True], np.array([True, False])]
)
def test_callbacks_that_say_something_else_do_not(other: Any) -> None:
    assert minimize(square, [1.0, 1.0], budget=40, callback=lambda _: other).stop == "budget"


def test_complex_numbers_are_no_values() -> None:
    with pytest.raises(ConfigError, match="one real number"):
        minimize(lambda x: np.complex128(3 + 4j), [1.0, 2.0], budget=15)
    with pytest.raises(ConfigError, match="one real number"):
        minimize(lambda x: np.sqrt(x.sum(1) + 0j) * 1j, [1.0, 2.0], budget=15, batched=True)
    with pytest.raises(RunError, match="it returned"):
        minimize(square, [0.0, 0.0], budget=50, constraints=[lambda x: x[0] + 1j])
    search = Optimizer(x0=[0.0], constrained=True)
    with pytest.raises(ConfigError, match="violations"):
        search.tell(search.ask(1), violations=[1j])


def test_constraints_are_asked_as_functions_are() -> None:
    def one(x: Any) -> torch.Tensor:
        return torch.tensor(x, requires_grad=True).sum() - 1

    assert minimize(square, [0.5, 0.0], budget=60, constraints=[one]).value < 0.3
    for wrong in (lambda _: None, lambda _: sys.exit(3)):
        with pytest.raises(RunError, match="a constraint: "):
            minimize(square, [0.0, 0.0], budget=50, constraints=[wrong])


@pytest.mark.parametrize("run_in", ["processes", "ray"])
def test_batches_at_once_have_no_workers(run_in: Any) -> None:
    with pytest.raises(ConfigError, match=f"run_in={run_in} is for functions of one point"):
        minimize(lambda x: (x**2).sum(1), [0.0, 1.0], budget=50, batched=True, run_in=run_in)


def test_a_search_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="budget=None must be a whole number"):
        minimize(square, [0.0], budget=None)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_ends_and_arrays_are_starts_of_typed_variables() -> None:
    assert Float(np.int64(0), np.int64(5)) == Float(0, 5)
    assert Log(np.float64(1e-3), 1) == Log(1e-3, 1)
    result = minimize(
        lambda p: (p[0] - 2) ** 2 + p[1], np.array([2, 0.5]), [Int(0, 5), (0, 1)], budget=30
    )
    assert result.x[0] == 2
    with pytest.raises(ConfigError, match="NaN"):
        Choice(math.nan, 1.0)


def test_a_search_is_saved_to_a_file_in_a_folder(tmp_path: Path) -> None:
    search = Optimizer(x0=[0.0])
    for wrong in (tmp_path, tmp_path / "none" / "a.search"):
        with pytest.raises(ConfigError, match="no file in a folder"):
            search.save(wrong)
    assert not list(tmp_path.iterdir())
