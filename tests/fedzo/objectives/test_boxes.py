"""Boxes that are the same, or hold each other, however their ends are told."""

import numpy as np
import pytest
import torch

from fedzo.objectives.box import holds_box, same_box
from fedzo.objectives.objective import CallableObjective


def boxed(lower: object, upper: object) -> CallableObjective:
    return CallableObjective(function=float, dim=2, lower=lower, upper=upper)  # type: ignore[arg-type]


@pytest.mark.parametrize("low", [0.1, np.array([0.1, 0.1]), torch.tensor([0.1, 0.1])])
def test_a_box_is_the_same_in_other_numbers(low: object) -> None:
    assert same_box(boxed(0.1, 1.0), boxed(low, np.array([1.0, 1.0])))
    assert not same_box(boxed(0.1001, 1.0), boxed(low, 1.0))


def test_a_box_holds_what_lies_inside() -> None:
    free, inner = boxed(-float("inf"), float("inf")), boxed(-1.0, 1.0)
    assert holds_box(free, inner)
    assert holds_box(inner, inner)
    assert not holds_box(inner, free)
    assert not holds_box(boxed(-1.0, np.array([1.0, 0.9])), inner)
