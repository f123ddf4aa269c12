"""Boxes and starts: what is taken, in which type, and what is refused."""

import math
import warnings
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from fedzo.errors import ConfigError, FedzoWarning
from fedzo.objectives.box import check_box, check_start
from fedzo.objectives.problem import OpenProblem


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ([0, 1, 2], torch.float64),
        ((0.0, 1.0, 2.0), torch.float64),
        (np.arange(3), torch.float64),
        (np.arange(3, dtype=np.float16), torch.float32),
        (np.arange(3, dtype=np.float32), torch.float32),
        (np.arange(3, dtype=">f8"), torch.float64),
        (np.arange(3, dtype=np.longdouble), torch.float64),
        (torch.arange(3), torch.float64),
        (torch.arange(3).half(), torch.float32),
        (torch.arange(3).bfloat16(), torch.float32),
        (torch.nn.Parameter(torch.arange(3).double()), torch.float64),
        (torch.arange(6).reshape(3, 2).float()[:, 0] / 2, torch.float32),
        ([Decimal(0), Decimal(1), Decimal(2)], None),
    ],
)
def test_a_start_is_float32_or_float64_or_refused(given: Any, dtype: torch.dtype | None) -> None:
    if dtype is None:
        with pytest.raises(ConfigError, match="initial_x is a list; give real numbers"):
            check_start(given, -math.inf, math.inf)
        return
    x = check_start(given, -math.inf, math.inf)
    assert (x.dtype, x.tolist()) == (dtype, [0.0, 1.0, 2.0])
    assert x.is_contiguous()
    assert not x.requires_grad


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0.0, math.nan], r"initial_x\[1\]=nan: all 2 numbers of a start must be finite"),
        (torch.tensor([math.inf]), r"initial_x\[0\]=inf"),
        (torch.zeros(2, 2), r"initial_x has shape \(2, 2\)"),
        (3.0, r"initial_x has shape \(\)"),
        ([], r"initial_x has shape \(0,\)"),
        ("12", "initial_x is <U2"),
        ([1j], "initial_x is complex128"),
        (torch.zeros(2, dtype=torch.complex64), "initial_x is torch.complex64"),
        ([True, False], "initial_x is bool"),
        ([[1.0], [1.0, 2.0]], "initial_x is a list"),
        (None, "initial_x is a NoneType"),
        (object(), "initial_x is a object"),
    ],
)
def test_what_is_no_start_is_named(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_start(given, -math.inf, math.inf)


def test_a_start_is_a_copy_and_one_outside_of_the_box_is_told() -> None:
    own = torch.zeros(3, dtype=torch.float64)
    problem = OpenProblem(initial_x=own, lower=-1.0, upper=1.0)
    own += 5
    assert problem.initial_x.tolist() == [0.0, 0.0, 0.0]
    with pytest.warns(FedzoWarning, match=r"initial_x\[0\]=5 lies outside of its bounds \[-1.0, 1"):
        OpenProblem(initial_x=own, lower=-1.0, upper=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_start(np.full(2, 0.1, dtype=np.float32), 0.0, 0.1)  # 0.1 rounded up to float32


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        (math.nan, 1.0, "lower=nan holds NaN"),
        (0.0, np.array([1.0, math.nan]), "upper=.* holds NaN"),
        (torch.tensor([0.0, math.nan]), 1.0, "lower=.* holds NaN"),
        (None, 1.0, "lower=None must be a real number, or 2 of them"),
        ("low", 1.0, "lower='low' must be a real number"),
        (1j, 1.0, "lower=1j must be a real number"),
        ([0.0, 1j], 1.0, "lower=.* must be a real number"),
        (False, 1.0, "lower=False must be a real number"),
        (np.zeros(3), 1.0, r"lower has shape \(3,\); give one number or 2"),
        (2.0, 1.0, "the box is empty"),
        (math.inf, math.inf, "lower must be below inf"),
        (-math.inf, -math.inf, "upper above -inf"),
    ],
)
def test_what_is_no_box_is_refused(lower: Any, upper: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_box(2, lower, upper)


def test_bounds_may_be_integers_tensors_and_lists() -> None:
    learnt = torch.ones(2, requires_grad=True)
    low, high = check_box(2, np.int64(-3), learnt)
    assert (low, torch.as_tensor(high).tolist()) == (-3.0, [1.0, 1.0])
    assert torch.as_tensor(check_box(2, [0, 1], 4)[0]).tolist() == [0.0, 1.0]
    for dim in (0, True):
        with pytest.raises(ConfigError, match=f"dim={dim}"):
            check_box(dim, 0.0, 1.0)  # type: ignore[arg-type]
