"""Spaces: starts, bounds of every kind, typed variables, and what is wrong with them."""

import math
from typing import Any

import numpy as np
import pytest

from fedzo.blackbox.space import make_space, restore_space
from fedzo.blackbox.variables import Choice, Float, Int
from fedzo.errors import ConfigError


def test_a_box_of_every_kind_of_bound() -> None:
    space = make_space(
        [1.0, 2.0, 3.0, 0.0], [(0, 2), (None, 5), (-math.inf, math.inf), (0, None)], None
    )
    assert space.lower.tolist() == pytest.approx([-0.5, -math.inf, -math.inf, 0.0])
    assert space.upper.tolist() == pytest.approx([0.5, 0.9, math.inf, math.inf])
    [start, far] = space.points(np.array([[0.0] * 4, [9.0] * 4]))
    assert start.tolist() == [1.0, 2.0, 3.0, 0.0]
    assert far.tolist() == [2.0, 5.0, 33.0, 30.0]


def test_a_step_is_three_tenths_of_a_unit() -> None:
    space = make_space([1.0, 1.0], None, 0.6)
    [point] = space.points(np.array([[0.3, -0.3]]))
    assert point.tolist() == pytest.approx([1.6, 0.4])


def test_bounds_alone_start_in_the_middle() -> None:
    space = make_space(None, [(0, 2), (-4, 0)], None)
    assert space.points(space.start.numpy()[None]).tolist() == [[1.0, -2.0]]  # type: ignore[union-attr]


def test_a_fixed_coordinate_stays() -> None:
    space = make_space(None, [(2, 2), (0, 1)], None)
    assert space.points(np.array([[5.0, 5.0]])).tolist() == [[2.0, 1.0]]  # type: ignore[union-attr]


def test_named_and_listed_variables() -> None:
    named = make_space({"n": 2, "c": "b"}, {"n": Int(1, 3), "c": Choice("a", "b")}, None)
    assert named.points(named.start.numpy()[None]) == [{"n": 2, "c": "b"}]
    assert named.least.tolist() == pytest.approx([1 / 3, 1.0, 1.0])
    listed = make_space(None, [Float(0.0, 1.0), (2, 4), Int(1, 3)], None)
    assert listed.points(listed.start.numpy()[None]) == [[0.5, 3.0, 2]]
    assert named.key({"n": 1, "c": "a"}) != named.key({"n": 2, "c": "a"})


@pytest.mark.parametrize(
    "space",
    [
        make_space([0.1, 0.2], [(0, 0.3), (None, 1)], None),
        make_space({"n": 2, "c": True}, {"n": Int(1, 3), "c": Choice(True, "b")}, None),
    ],
)
def test_a_space_is_restored_from_its_facts(space: Any) -> None:
    again = restore_space(space.facts())
    z = np.linspace(0, 1, 3 * len(space.start)).reshape(3, -1)
    assert str(again.points(z)) == str(space.points(z))
    assert again.start.equal(space.start)


@pytest.mark.parametrize(
    ("x0", "bounds", "step", "told"),
    [
        (None, None, None, "give a start, bounds, or both"),
        (None, (0, 1), None, "how many numbers"),
        (None, [(0, None)], None, "no middle; give x0"),
        ([0.5, 3.0], [(0, 1), (0, 1)], None, r"x0\[1\]=3.0 lies outside"),
        ([0.5], [(0, 1), (0, 1)], None, "2 pairs and x0 1"),
        ([0.5], [(1, 0)], None, "low must not exceed high"),
        ([0.5], [(0, 1, 2)], None, "a pair"),
        ([math.nan], None, None, "NaN or infinity"),
        ("abc", None, None, "vector of real numbers"),
        ([0.5], None, -1.0, "positive number"),
        (None, {"n": Int(1, 3)}, 1.0, "no effect on typed"),
        (None, {"n": "Int"}, None, "is no variable"),
        ({"m": 1}, {"n": Int(1, 3)}, None, "a point has"),
    ],
)
def test_what_is_no_space_is_told(x0: Any, bounds: Any, step: float | None, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_space(x0, bounds, step)
