"""Constraints: f is called inside alone, feasible points lead, searches are saved and go on."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedzo.blackbox.minimize import minimize
from fedzo.blackbox.optimizer import Optimizer
from fedzo.blackbox.variables import Choice, Int
from fedzo.errors import ConfigError, RunError


def bowl(x: NDArray[np.float64]) -> float:
    return float((x**2).sum())


def at_least_one(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 - x[:2]


@pytest.mark.parametrize("start", [0.0, 1.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_point_is_allowed_and_at_the_edge(start: float, seed: int) -> None:
    seen: list[NDArray[np.float64]] = []

    def watched(x: NDArray[np.float64]) -> float:
        seen.append(x.copy())
        return bowl(x)

    result = minimize(watched, x0=[start] * 5, budget=1500, seed=seed, constraints=[at_least_one])
    assert all((at_least_one(x) <= 0).all() for x in seen)
    assert (at_least_one(result.x) <= 0).all()
    assert result.value == pytest.approx(2, rel=1e-2)
    assert len(seen) == int((result.violations == 0).sum()) == 1500 < result.evaluations
    assert np.isnan(result.values[result.violations > 0]).all()
    assert "cma, because points may be infeasible" in result.why


def test_a_start_far_outside_finds_the_allowed_part() -> None:
    result = minimize(bowl, x0=np.zeros(4), budget=600, constraints=lambda x: 30 - x.sum(), seed=0)
    assert result.x.sum() >= 30
    assert math.isinf(result.best_values[0])


def test_where_nothing_is_allowed_it_says_how_near_it_came() -> None:
    result = minimize(bowl, x0=[0.0, 0.0], budget=40, constraints=[lambda x: 7 + bowl(x)])
    assert result.x is None
    assert "the least violation was 7" in repr(result)
    assert "40 infeasible" in repr(result)


def test_typed_variables_have_constraints_too() -> None:
    space = {"layers": Int(1, 8), "act": Choice("relu", "tanh")}
    result = minimize(
        lambda p: p["layers"] + (p["act"] == "relu"),
        bounds=space,
        budget=150,
        constraints=[lambda p: 4 - p["layers"], lambda p: float(p["act"] == "tanh")],
    )
    assert result.x == {"layers": 4, "act": "relu"}


def test_workers_give_the_same_points() -> None:
    def search(**options: Any) -> NDArray[np.float64]:
        found = minimize(bowl, x0=[1.5] * 3, budget=90, constraints=[at_least_one], **options)
        assert isinstance(found.points, np.ndarray)
        return found.points

    alone = search()
    assert np.array_equal(alone, search(workers=3))
    assert np.array_equal(alone, search(workers=2, run_in="processes"))


def test_a_constraint_that_raises_or_is_nan_fails_its_point() -> None:
    def log_of(x: NDArray[np.float64]) -> float:
        if x[0] > 0.5:
            raise ValueError("no such part")
        return math.nan if x[0] > 0.3 else -1.0

    result = minimize(bowl, x0=[0.2, 0.2], budget=100, constraints=[log_of])
    assert result.failures > 0
    assert (result.x <= 0.3).all()
    with pytest.raises(RunError, match="a constraint: ZeroDivisionError"):
        minimize(bowl, x0=[0.0, 0.0], budget=100, constraints=[lambda x: 1 / 0])


def told(opt: Optimizer, count: int) -> None:
    for _ in range(count):
        points = opt.ask()
        above = [at_least_one(x) for x in points]
        values = [None if (a > 0).any() else bowl(x) for x, a in zip(points, above, strict=True)]
        opt.tell(points, values, violations=above)


@pytest.mark.parametrize("method", ["auto", "cma", "random"])
def test_a_saved_search_goes_on_at_the_same_bits(tmp_path: Path, method: str) -> None:
    opt = Optimizer([0.9] * 4, method=method, parallel=4, constrained=True)
    told(opt, 4)
    assert (opt.result().violations > 0).any()
    opt.save(tmp_path / "search")
    again = Optimizer.load(tmp_path / "search")
    assert again.constrained
    told(opt, 5)
    told(again, 5)
    assert np.array_equal(opt.result().points, again.result().points)
    assert np.array_equal(opt.result().violations, again.result().violations)


def test_what_cannot_be_is_refused_with_the_remedy() -> None:
    assert minimize(bowl, x0=[0.0], budget=1, constraints=[at_least_one]).evaluations
    with pytest.raises(ConfigError, match="use auto, cma or random"):
        minimize(bowl, x0=[0.0], budget=10, method="fzoos", constraints=[at_least_one])
    with pytest.raises(ConfigError, match="must be functions of a point"):
        minimize(bowl, x0=[0.0], budget=10, constraints=3)  # type: ignore[arg-type]
    plain = Optimizer([0.0, 0.0], method="cma")
    points = plain.ask()
    with pytest.raises(ConfigError, match="constrained=True"):
        plain.tell(points, violations=np.ones(len(points)))
    opt = Optimizer([0.0, 0.0], method="cma", constrained=True)
    points = opt.ask()
    with pytest.raises(ConfigError, match="of them NaN"):
        opt.tell(points, violations=np.full(len(points), np.nan))
    with pytest.raises(ConfigError, match="go with values"):
        opt.tell(points, failures="lost", violations=np.ones(len(points)))
    opt.tell(points, violations=np.ones(len(points)))
    assert opt.best_value == math.inf
