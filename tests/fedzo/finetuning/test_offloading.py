"""Layers that come to a device one by one: the bits of the CPU, one layer there at a time."""

from collections.abc import Callable

import pytest
import torch
from counting_device import PLACE, Device, There
from torch import Tensor, nn
from torch.nn import functional

from fedzo import ZerothOrder
from fedzo.errors import ConfigError
from fedzo.finetuning.offloading import offload_

X, Y = torch.linspace(-2, 2, 96).sin().reshape(12, 8), torch.arange(12) % 3


class Net(nn.Module):
    """Tied layers, an attention that reads parameters of its child, a buffer, a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.again, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.again.weight = self.first.weight
        self.again.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.norm(self.first(x))).unsqueeze(1)
        h = self.attention(h, h, h)[0].squeeze(1)
        out: Tensor = self.head(torch.tanh(self.again(h)))
        return out


def made() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def loss_of(net: nn.Module, place: torch.device | str) -> Callable[[], Tensor]:
    inputs, targets = X.to(place), Y.to(place)
    return lambda: functional.cross_entropy(net(inputs), targets)


@pytest.mark.more
@pytest.mark.parametrize("method", ["mezo", "zo_sgd", "fzoo", "lozo", "zo_adam"])
def test_steps_have_the_bits_of_the_cpu(method: str) -> None:
    here, there = made(), made()
    plain = ZerothOrder(here, lr=0.01, method=method)
    for _ in range(3):
        plain.step(loss_of(here, "cpu"))
    with Device():
        offload_(there, PLACE)
        away = ZerothOrder(there, lr=0.01, method=method)
        for _ in range(3):
            away.step(loss_of(there, PLACE))
    assert away.log.told == plain.log.told
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        assert isinstance(q, nn.Parameter)
        assert torch.equal(p, q)


def test_one_layer_is_there_at_a_time_and_all_are_copied_once_a_pass() -> None:
    net = made()
    seen: list[set[str]] = []

    def note(*_: object) -> None:
        seen.append({n for n, p in net.named_parameters(remove_duplicate=False) if is_there(p)})

    def is_there(p: Tensor) -> bool:
        return isinstance(p, There)

    with Device() as device:
        offload_(net, PLACE)
        for layer in (net.first, net.norm, net.attention, net.again, net.head):
            layer.register_forward_hook(note, prepend=True)
        loss = loss_of(net.eval(), PLACE)
        device.up.clear()
        with torch.no_grad():
            loss()
        copied = sum(numbers for numbers, _ in device.up)
    assert [len({name.split(".")[0] for name in some}) for some in seen] == [1] * 5
    assert copied == sum(p.numel() for _, p in net.named_parameters(remove_duplicate=False))
    assert not any(is_there(p) for p in net.parameters())


def test_what_fails_in_a_layer_leaves_its_parameters_on_the_cpu() -> None:
    net = made()
    with Device():
        offload_(net, PLACE)
        with pytest.raises(RuntimeError, match="different devices"):
            net(X)
    assert all(isinstance(p, nn.Parameter) for p in net.parameters())


def test_it_ends_and_refuses_what_is_not_on_the_cpu() -> None:
    net = made()
    ended = offload_(net, "cpu")
    ended.remove()
    assert torch.equal(net.eval()(X), made().eval()(X))
    with pytest.raises(ConfigError, match="on the CPU"):
        offload_(nn.Linear(2, 2, device="meta"), "cpu")
    with pytest.raises(ConfigError, match="not all frozen"):
        offload_(nn.Linear(2, 2).requires_grad_(False), "cpu")
