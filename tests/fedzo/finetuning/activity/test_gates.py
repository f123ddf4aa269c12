"""Local derivatives are found where an elementwise function reads the outputs, and only there."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedzo.finetuning.activity.gates import Gates

READERS: list[Callable[[Tensor], Tensor]] = [
    nn.ReLU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.Tanh(), nn.Sigmoid(),
    nn.LeakyReLU(0.2), nn.ELU(), nn.Softplus(), nn.Hardswish(), nn.Mish(), nn.ReLU6(),
    torch.relu, torch.tanh, torch.sigmoid, functional.relu, functional.tanh,
    Tensor.relu, Tensor.tanh, Tensor.sigmoid,
]  # fmt: skip


def gate_of(reader: Callable[[Tensor], Tensor], h: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    with torch.no_grad(), Gates() as gates:
        gates.wait(h, lambda gate, _: found.append(gate))
        reader(h)
    return found


@pytest.mark.parametrize("reader", READERS, ids=lambda r: getattr(r, "__name__", repr(r)))
def test_it_is_the_derivative(reader: Callable[[Tensor], Tensor]) -> None:
    h = torch.linspace(-4, 7, 23, dtype=torch.float64).requires_grad_()
    [wanted] = torch.autograd.grad(reader(h).sum(), h)
    [found] = gate_of(reader, h)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("reader", [nn.ReLU(inplace=True), torch.relu_, Tensor.relu_])
def test_what_works_in_place_works_once(reader: Callable[[Tensor], Tensor]) -> None:
    h = torch.tensor([-1.0, 2.0])
    [found] = gate_of(reader, h)
    assert found.tolist() == [0, 1]
    assert h.tolist() == [0, 2]


def test_other_readers_and_other_tensors_give_none() -> None:
    h = torch.ones(3)
    assert gate_of(lambda t: torch.softmax(t, 0), h) == []
    assert gate_of(lambda t: torch.relu(t + 1), h) == []
