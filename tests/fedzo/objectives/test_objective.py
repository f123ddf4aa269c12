"""Objectives and their adapters; one law suite for all of them."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.cohort import cohort_gradient, cohort_of
from fedzo.objectives.objective import (
    CallableObjective,
    Maximize,
    ModuleObjective,
    Objective,
    TorchObjective,
    flatten_parameters,
)


def module() -> ModuleObjective:
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    net.to_empty(device="cpu").double()
    state = {k: torch.ones_like(v) for k, v in net.state_dict().items()}
    net.load_state_dict(state)
    inputs = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    return ModuleObjective(net, nn.functional.mse_loss, inputs, torch.ones(4, 1).double())


def square(x: np.ndarray) -> float:
    return float((x**2).sum())


OBJECTIVES: dict[str, Objective] = {
    "scalar callable": CallableObjective(function=square, dim=3),
    "batched callable": CallableObjective(
        function=lambda x: (x**2).sum(axis=1), dim=3, batched=True
    ),
    "torch": TorchObjective(function=lambda x: x.square().sum(-1), dim=3),
    "maximize": Maximize(CallableObjective(function=square, dim=3)),
    "module": module(),
}


@pytest.fixture(params=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> Objective:
    return OBJECTIVES[request.param]


def test_a_function_of_torch_may_work_in_place() -> None:
    objective = TorchObjective(function=lambda x: x.sub_(0.5).square_().sum(-1), dim=2)
    x = torch.zeros(3, 2, requires_grad=True)
    assert objective.value(x).tolist() == [0.5] * 3
    assert not x.any()
    [gradient] = torch.autograd.grad(objective.value(x).sum(), x)
    assert torch.equal(gradient, torch.full((3, 2), -1.0))


def test_complex_parameters_are_refused_with_the_way_out() -> None:
    net = nn.Linear(3, 2, dtype=torch.complex64)
    inputs = torch.zeros(4, 3, dtype=torch.complex64)
    with pytest.raises(ConfigError, match=r"parameter 'weight' of the Linear is torch.complex64"):
        ModuleObjective(net, nn.functional.mse_loss, inputs, inputs)


def test_values_keep_the_leading_axes(objective: Objective) -> None:
    x = torch.linspace(-1, 1, 2 * 4 * objective.dim, dtype=torch.float64)
    x = x.reshape(2, 4, objective.dim)
    values = objective.value(x)
    assert values.shape == (2, 4)
    assert values.dtype == x.dtype
    one_by_one = torch.stack([objective.value(p) for p in x.reshape(8, -1)]).reshape(2, 4)
    assert torch.allclose(values, one_by_one, atol=1e-14)


def test_asking_changes_neither_the_point_nor_the_answer(objective: Objective) -> None:
    x = torch.full((2, objective.dim), 0.3, dtype=torch.float64)
    first = objective.value(x)
    assert torch.equal(x, torch.full_like(x, 0.3))
    assert torch.equal(first, objective.value(x))


def test_maximize_is_the_negative() -> None:
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert float(OBJECTIVES["maximize"].value(x)) == -14.0


def test_a_callable_cannot_damage_fedzos_points() -> None:
    def vandal(x: np.ndarray) -> float:
        x[:] = 99
        return 0.0

    x = torch.ones(2, 3, dtype=torch.float64)
    CallableObjective(function=vandal, dim=3).value(x)
    assert torch.equal(x, torch.ones_like(x))


@pytest.mark.parametrize("answer", [None, "much", [1.0, 2.0], 1j])
def test_a_callable_that_returns_no_number_is_named(answer: object) -> None:
    broken = CallableObjective(function=lambda x: answer, dim=3)
    with pytest.raises(ObjectiveError, match="return one real number a point"):
        broken.value(torch.zeros(2, 3))


def test_module_loss_is_the_modules_own_and_its_buffers_stay() -> None:
    objective = module()
    x = flatten_parameters(objective.module)
    before = {k: v.clone() for k, v in objective.module.state_dict().items()}
    objective.module.eval()
    expected = nn.functional.mse_loss(objective.module(objective.inputs), objective.targets)
    objective.module.train()
    assert float(objective.value(x)) == float(expected.detach())
    assert objective.module.training
    after = objective.module.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_module_gradient_is_autograds() -> None:
    objective = module()
    x = flatten_parameters(objective.module).requires_grad_(True)
    (expected,) = torch.autograd.grad(objective.value(x), x)
    ours = cohort_gradient(cohort_of([objective]), x.detach().unsqueeze(0))[0]
    assert torch.allclose(ours, expected)
    assert float(expected.norm()) > 0


def test_minibatches_average_to_the_whole() -> None:
    objective = module()
    x = flatten_parameters(objective.module)
    parts = [objective.minibatch(torch.tensor(i)).value(x) for i in ([0, 1], [2, 3])]
    assert float(objective.value(x)) == pytest.approx(float(sum(parts)) / 2)


def test_black_boxes_have_no_gradient() -> None:
    cohort = cohort_of([OBJECTIVES["scalar callable"], OBJECTIVES["torch"]])
    gradient = cohort_gradient(cohort, torch.ones(2, 3, dtype=torch.float64))
    assert "use a zeroth-order strategy" in cohort.failures[0]
    assert gradient[0].isnan().all()
    assert gradient[1].tolist() == [2.0, 2.0, 2.0]


def test_default_box_is_everything() -> None:
    objective = OBJECTIVES["torch"]
    assert objective.lower == -math.inf
    assert objective.upper == math.inf


@pytest.mark.parametrize(
    "answer",
    [
        *(2, 2.0, np.float16(2), np.array([2.0]), np.array(2), Decimal(2), Fraction(2)),
        *(torch.tensor(2), torch.tensor([2.0]), torch.tensor(2.0).half()),
        torch.tensor(2.0, requires_grad=True),
    ],
)
def test_a_callable_may_return_any_real_number(answer: object) -> None:
    told = CallableObjective(function=lambda x: answer, dim=3).value(torch.zeros(2, 3))
    assert (told.tolist(), told.dtype) == ([2.0, 2.0], torch.float64)


@pytest.mark.parametrize(
    "answer",
    [
        *("2", b"2", np.complex128(2), np.array([1.0, 2.0]), torch.tensor(2j), torch.ones(2)),
        *(10**400, np.array(None), np.array("2"), object()),
    ],
)
def test_what_is_no_real_number_is_refused(answer: object) -> None:
    with pytest.raises(ObjectiveError, match="return one real number a point"):
        CallableObjective(function=lambda x: answer, dim=3).value(torch.zeros(2, 3))


class Told:
    """Somebody's own objective, unchecked."""

    dim, lower, upper = 3, -math.inf, math.inf

    def __init__(self, answer: Any) -> None:
        self.value = answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x.sum(), "answered float32 of shape () for 2 points; return one real"),
        (lambda x: x.sum(-1) * 1j, "answered complex64 of shape (2,)"),
        (lambda x: None, "answered None; return a tensor with one real number a point"),
    ],
)
def test_what_an_objective_answers_is_checked(answer: Any, message: str) -> None:
    cohort = cohort_of([Told(answer), OBJECTIVES["torch"]])
    values = cohort.value(torch.ones(2, 2, 3))
    assert message in cohort.failures[0]
    assert values.isnan().tolist() == [[True, True], [False, False]]
    assert values.dtype == torch.float64
