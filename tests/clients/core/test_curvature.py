"""AdaHessian at clients: exact on quadratics, unbiased elsewhere, averaged in convolutions."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from worlds import ask_once

from clients.core.curvature import averaged, kernels_of
from clients.core.local_optimizers import make_local_optimizer
from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.cohort import cohort_of, gradient_and_product
from fedzo.objectives.modules import ModuleObjective
from fedzo.objectives.objective import CallableObjective, TorchObjective
from fedzo.optimizers import CURVATURE_EPS, Adam
from fedzo.protocol.questions.training import FirstOrderSteps
from fedzo.protocol.questions.training_config import FirstOrderConfig
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

SCALES = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)


def bowl(client: int) -> TorchObjective:
    return TorchObjective(function=lambda x: (SCALES * (x - client) ** 2).sum(-1) / 2, dim=3)


def steps(count: int, lr: float = 0.1, **settings: object) -> FirstOrderSteps:
    config = FirstOrderConfig(optimizer="adahessian", **settings)  # type: ignore[arg-type]
    x = torch.full((3,), 5.0, dtype=torch.float64)
    return FirstOrderSteps(x=x, settings=config, local_steps=count, local_lr=lr)


def test_on_a_bowl_a_step_is_that_of_newton_times_the_rate() -> None:
    """D is exact for diagonal Hessians, whatever the signs: the step is lr g / diag."""
    replies = ask_once(steps(1), bowl)
    update = replies.tensors["update"]
    expected = torch.stack([-0.1 * (5.0 - client) * torch.ones(3) for client in range(3)])
    assert torch.allclose(update, expected.double(), atol=1e-4)
    assert replies.counts["gradients"] == {0: 2, 1: 2, 2: 2}


def test_a_step_is_adams_with_the_curvature_in_the_second_moment() -> None:
    x, g = torch.zeros(2, 3), torch.randn(4, 2, 3)
    ours, adam = make_local_optimizer("adahessian"), Adam(eps=CURVATURE_EPS)
    state, moved = ours.init(x), x
    plain, by_adam = adam.init(x), x
    for gradient in g:
        state, moved = ours.step(state, moved, gradient, 0.1, gradient)
        plain, by_adam = adam.step(plain, by_adam, gradient, 0.1)
    assert torch.equal(moved, by_adam)
    assert make_local_optimizer("adahessian", momentum=0.5) == Adam(beta1=0.5, eps=CURVATURE_EPS)


def test_the_mean_over_signs_is_the_diagonal() -> None:
    mixing = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    hessian = mixing @ mixing.T
    cohort = cohort_of([TorchObjective(function=lambda x: ((x @ mixing) ** 2).sum(-1) / 2, dim=3)])
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    found = []
    for z in signs:
        gradient, product = gradient_and_product(cohort, torch.ones(1, 3).double(), z.unsqueeze(0))
        assert torch.allclose(gradient[0], hessian.sum(1))
        assert torch.allclose(product[0], hessian @ z)
        found.append(z * product[0])
    assert torch.allclose(torch.stack(found).mean(0), hessian.diagonal())


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.out = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x).tanh().mean((2, 3)))


def module(client: int) -> ModuleObjective:
    torch.manual_seed(0)
    inputs = torch.rand(4, 1, 5, 5)
    return ModuleObjective(
        module=Small().double(), inputs=inputs.double(), targets=torch.tensor([0, 1, 1, 0]),
        loss=nn.functional.cross_entropy,
    )  # fmt: skip


def test_kernels_of_a_convolution_have_one_curvature() -> None:
    kernels = kernels_of(cohort_of([module(0), module(1)]))
    assert kernels == [(18, 9), (2, 1), (4, 1), (2, 1)]
    values = torch.arange(26.0).unsqueeze(0)
    told = averaged(values, kernels)
    assert told[0, :9].tolist() == [4.0] * 9
    assert told[0, 9:18].tolist() == [13.0] * 9
    assert torch.equal(told[0, 18:], values[0, 18:])
    assert kernels_of(cohort_of([bowl(0)])) == []


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def plain(client: int) -> ModuleObjective:
    torch.manual_seed(client)
    return ModuleObjective(
        module=Plain().double(), inputs=torch.rand(6, 3).double(),
        targets=torch.tensor([0, 1, 1, 0, 1, 0]), loss=nn.functional.cross_entropy,
    )  # fmt: skip


@pytest.mark.parametrize("make", [plain, module])
@pytest.mark.parametrize("clients", [1, 3])
def test_products_of_modules_are_those_of_their_hessians(make: Any, clients: int) -> None:
    """Modules that are asked as one program too, on minibatches with examples left out."""
    objectives = [make(client) for client in range(clients)]
    cohort = cohort_of(objectives)
    x = torch.stack([objective.initial_x for objective in objectives])
    generator = torch.Generator().manual_seed(0)
    z = torch.randint(0, 2, x.shape, generator=generator).double() * 2 - 1
    indices = torch.tensor([[0, 2, 3], [1, -1, -1], [2, 1, -1]])[:clients]
    for part, rows in ((cohort, None), (cohort.minibatch(indices), indices)):  # type: ignore[attr-defined]
        gradient, product = gradient_and_product(part, x, z)
        for i, objective in enumerate(objectives):
            one = objective if rows is None else objective.minibatch(rows[i][rows[i] >= 0])
            hessian = torch.autograd.functional.hessian(one.loss_at, x[i])
            assert torch.allclose(product[i], hessian @ z[i], atol=1e-10)
            slope = torch.autograd.functional.jacobian(one.loss_at, x[i])
            assert torch.allclose(gradient[i], slope, atol=1e-12)


def test_planes_have_no_curvature_and_what_cannot_be_differentiated_twice_says_so() -> None:
    plane = cohort_of([TorchObjective(function=lambda x: (3 * x).sum(-1), dim=2)])
    one = torch.ones(1, 2, dtype=torch.float64)
    gradient, product = gradient_and_product(plane, one, one)
    assert gradient.tolist() == [[3.0, 3.0]]
    assert product.tolist() == [[0.0, 0.0]]

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return 2 * x * grad

    opaque = cohort_of([TorchObjective(function=lambda x: Once.apply(x).sum(-1), dim=2)])
    with pytest.raises(ObjectiveError, match=r"set client\.optimizer to another"):
        gradient_and_product(opaque, one, one)


def test_a_module_learns_by_it() -> None:
    config = FirstOrderConfig(optimizer="adahessian")
    start = module(0).initial_x
    assert start is not None
    asked = FirstOrderSteps(x=start, settings=config, local_steps=5, local_lr=0.05)
    update = ask_once(asked, module, ids=(0,)).tensors["update"]
    assert module(0).value(start + update[0]) < module(0).value(start)


def test_a_black_box_has_none_and_is_told_so() -> None:
    box = CallableObjective(function=lambda x: float((x**2).sum()), dim=3)
    replies = ask_once(steps(1), lambda client: box)
    assert not replies.client_ids
    assert "black" in replies.failures[0]


def test_it_is_reached_by_name_and_refused_where_there_are_no_gradients() -> None:
    settings = {"scenario.dim": 6, "client.optimizer": "adahessian", "strategy.local_lr": 0.01}
    made = make_experiment("quadratic", "fedavg", num_rounds=5, num_clients=4, settings=settings)
    found = simulate(made)
    assert found.final_value is not None
    assert found.initial_value is not None
    assert found.final_value < found.initial_value
    assert found.records[-1].gradients == 5 * 4 * 2 * 10
    with pytest.raises(ConfigError, match="adahessian"):
        make_experiment("quadratic", "fedzo", settings={"client.optimizer": "adahessian"})
    compiled = make_experiment(
        "quadratic", "fedavg", num_clients=4, settings={**settings, "client.compile": True}
    )
    with pytest.raises(ConfigError, match="does not know client"):
        simulate(compiled)
