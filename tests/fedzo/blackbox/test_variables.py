"""Typed variables: what coordinates stand for, there and back."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedzo.blackbox.variables import Choice, Float, Int, Log, Variable
from fedzo.errors import ConfigError

KINDS = [Float(-2.0, 3.0), Log(1e-4, 10.0), Int(-3, 4), Choice("a", 2, True, 0.5)]


def test_middles_by_hand() -> None:
    log = Log(1e-4, 1.0)
    assert Float(-2.0, 4.0).value(np.array([0.5])) == 1.0
    assert math.isclose(log.value(log.middle()), 1e-2)
    assert Int(1, 8).value(Int(1, 8).middle()) == 4
    assert [Int(1, 2).value(np.array([z])) for z in (0.0, 0.49, 0.51, 1.0)] == [1, 1, 2, 2]
    assert Choice("a", "b").value(np.array([0.2, 0.3])) == "b"


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(u=st.floats(0, 1))
def test_values_are_allowed_and_come_back(kind: Variable, u: float) -> None:
    value = kind.value(np.full(kind.size, u))
    again = kind.value(kind.coordinates(value))
    assert type(again) is type(value)
    assert again == value or math.isclose(again, value, abs_tol=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Float(1.0, 1.0), "low must be below high"),
        (lambda: Float(0.0, math.inf), "must be finite"),
        (lambda: Log(0.0, 1.0), "low must be positive"),
        (lambda: Choice("a"), "at least two options"),
        (lambda: Choice("a", "a"), "each once"),
        (lambda: Int(1, 3).coordinates(1.5), "not a whole number"),
        (lambda: Int(1, 3).coordinates(7), "outside"),
        (lambda: Float(0.0, 1.0).coordinates("x"), "no number"),
        (lambda: Choice("a", "b").coordinates("c"), "none of"),
    ],
)
def test_wrong_variables_and_values_are_told(make: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()  # type: ignore[operator]
