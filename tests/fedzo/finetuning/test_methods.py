"""What holds for every method: replay, exact bits, counts, nothing touched that is not x."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from module_nets import ALL, FORWARDS, INPUTS, TARGETS, loss_of, net, numbers
from torch import nn

from fedzo.errors import ConfigError
from fedzo.finetuning.log import Log
from fedzo.finetuning.methods.table import METHODS
from fedzo.finetuning.zeroth_order import ZerothOrder

BY_NAME = [pytest.param(method, id=name) for name, method in ALL.items()]


def trained(method, steps: int = 6, seed: int = 0, lr: float = 0.02):  # type: ignore[no-untyped-def]
    module = net()
    optimizer = ZerothOrder(module, lr, method=method, seed=seed)
    for _ in range(steps):
        optimizer.step(loss_of(module), full=loss_of(module))
    return module, optimizer


def test_every_named_method_is_tried() -> None:
    assert {type(method) for method in ALL.values()} == set(METHODS.values()) - {METHODS["qzo"]}


@pytest.mark.more
@pytest.mark.parametrize("method", BY_NAME)
def test_the_log_leads_to_the_same_bits_and_the_seed_decides(method) -> None:  # type: ignore[no-untyped-def]
    steps = 2 if type(method) is METHODS["cge"] else 6
    module, optimizer = trained(method, steps)
    again = net()
    ZerothOrder(again, 0.5, method=method).replay(optimizer.log)
    assert torch.equal(numbers(module), numbers(again))
    same, other = trained(method, steps)[0], trained(method, steps, seed=1)[0]
    assert torch.equal(numbers(module), numbers(same))
    if METHODS["cge"] is not type(method):
        assert not torch.equal(numbers(module), numbers(other))


@pytest.mark.more
@pytest.mark.parametrize("method", BY_NAME)
def test_training_goes_down(method) -> None:  # type: ignore[no-untyped-def]
    before = float(loss_of(net())().detach())
    rates = {"evolution": 0.1, "relizo": 4.0, "gp": 4.0, "cge": 0.01, "consensus": 0.2}
    name = next(name for name, kind in METHODS.items() if kind is type(method))
    many = {"cge": 3, "deepzero": 8, **dict.fromkeys(("consensus", "evolution", "rank_sgd"), 20)}
    steps = many.get(name, 60 if FORWARDS.get(name, (0, 9))[1] < 4 else 20)
    lr = 0.005 if name == "zo_momentum" else rates.get(name, 0.02)
    module, _ = trained(method, steps=steps, lr=lr)
    assert float(loss_of(module)().detach()) < before - 0.01


@pytest.mark.parametrize(("method", "asked"), FORWARDS.values(), ids=FORWARDS)
def test_forward_passes_are_counted(method, asked: int) -> None:  # type: ignore[no-untyped-def]
    module = net()
    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        return loss_of(module)()

    optimizer = ZerothOrder(module, 0.01, method=method)
    for _ in range(2):
        optimizer.step(closure)
    assert optimizer.spent.forwards == 2 * asked
    assert len(calls) == optimizer.spent.forwards + optimizer.spent.tangents


@pytest.mark.parametrize("method", BY_NAME)
def test_nothing_else_is_touched(method) -> None:  # type: ignore[no-untyped-def]
    module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    module[0].bias.requires_grad_(False)
    module[3].weight.grad = torch.ones(3, 8)
    frozen, buffers = module[0].bias.clone(), [b.clone() for b in module.buffers()]
    state = torch.get_rng_state()
    optimizer = ZerothOrder(module, 0.01, method=method)
    for _ in range(2):
        optimizer.step(loss_of(module), full=loss_of(module))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(frozen, module[0].bias)
    assert all(torch.equal(a, b) for a, b in zip(buffers, module.buffers(), strict=True))
    assert torch.equal(module[3].weight.grad, torch.ones(3, 8))
    assert module[0].weight.grad is None
    assert module.training


@pytest.mark.parametrize("method", BY_NAME)
def test_a_step_of_length_zero_leaves_every_bit(method) -> None:  # type: ignore[no-untyped-def]
    module, _ = trained(method, steps=2, lr=0.0)
    assert torch.equal(numbers(module), numbers(net()))


@pytest.mark.more
@pytest.mark.parametrize("method", BY_NAME)
@pytest.mark.parametrize("answer", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_moves_nothing(method, answer: float) -> None:  # type: ignore[no-untyped-def]
    module = net()
    optimizer = ZerothOrder(module, 0.02, method=method)

    def closure() -> torch.Tensor:
        return loss_of(module)() * 0 + answer

    optimizer.step(closure, full=closure)
    after = numbers(module)
    assert after.isfinite().all()
    assert torch.allclose(after, numbers(net()), atol=0.021)


@pytest.mark.parametrize("method", BY_NAME)
def test_an_exception_of_the_closure_leaves_all_as_it_was(method) -> None:  # type: ignore[no-untyped-def]
    module = net()
    optimizer = ZerothOrder(module, 0.02, method=method)
    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("the disk is gone")
        return loss_of(module)()

    if not method.asks_values:
        closure()
    with pytest.raises(OSError, match="disk"):
        optimizer.step(closure, full=closure)
    assert torch.equal(numbers(module), numbers(net()))
    assert optimizer.steps == 0


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["mezo", "zo_adam", "lozo", "subzero", "hizoo", "block_zo"])
def test_other_types_of_numbers(name: str, kind: torch.dtype) -> None:
    module = net().to(kind)
    inputs = INPUTS.to(kind)
    optimizer = ZerothOrder(module, 0.02, method=name)
    for _ in range(3):
        loss = optimizer.step(lambda: nn.functional.cross_entropy(module(inputs).float(), TARGETS))
    assert math.isfinite(loss)
    assert all(p.dtype == kind and p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("name", ["mezo", "lozo", "forward_gradient", "cge"])
def test_tied_and_noncontiguous_parameters_move_once(name: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6, bias=False)
            self.second = nn.Linear(6, 6, bias=False)
            self.second.weight = self.first.weight
            self.head = nn.Parameter(torch.linspace(-1, 1, 18).reshape(3, 6).t())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).tanh()) @ self.head

    module = Tied()
    assert not module.head.is_contiguous()
    optimizer = ZerothOrder(module, 0.02, method=name)
    assert optimizer.view.dim == 36 + 18
    before = float(loss_of(module)().detach())
    for _ in range(4 if name == "cge" else 40):
        optimizer.step(loss_of(module))
    assert module.second.weight is module.first.weight
    assert float(loss_of(module)().detach()) < before


def test_a_view_moves_nothing_else_and_has_the_bits_of_the_whole() -> None:
    module, whole = net(), net()
    part = ZerothOrder(module, 0.1, method="mezo", view="2")
    ZerothOrder(whole, 0.1, method="mezo")
    part.step(loss_of(module))
    assert torch.equal(module[0].weight, whole[0].weight)
    assert part.view.firsts == (56, 80)
    assert not torch.equal(module[2].weight, whole[2].weight)
    with pytest.raises(ConfigError, match=r"view='7' matches none of .* 0.weight"):
        ZerothOrder(module, 0.1, view="7")


def test_no_gradient_is_made_by_plain_steps() -> None:
    module, _ = trained("mezo")
    assert all(p.grad is None for p in module.parameters())


def test_schedulers_of_torch_set_the_step() -> None:
    module = net()
    optimizer = ZerothOrder(module, 0.1, method="zo_adam")
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for _ in range(3):
        optimizer.step(loss_of(module))
        scheduler.step()
    assert optimizer.log.lrs == [0.1, 0.05, 0.025]


@pytest.mark.parametrize("kind", ["StepLR", "CosineAnnealingLR", "LambdaLR"])
def test_a_run_with_a_scheduler_goes_on_by_its_log(kind: str, tmp_path: Path) -> None:
    def begun() -> tuple[nn.Module, ZerothOrder, torch.optim.lr_scheduler.LRScheduler]:
        module = net()
        optimizer = ZerothOrder(module, 0.1, method="zo_sgd")
        how = {"StepLR": (4, 0.5), "CosineAnnealingLR": (40,), "LambdaLR": (lambda k: 0.9**k,)}
        return module, optimizer, getattr(torch.optim.lr_scheduler, kind)(optimizer, *how[kind])

    def go(module: nn.Module, optimizer: ZerothOrder, scheduler: Any) -> None:
        for _ in range(7):
            optimizer.step(loss_of(module))
            scheduler.step()

    whole = begun()
    go(*whole)
    whole[1].log.save(tmp_path / "log")
    told = whole[2].state_dict()
    go(*whole)
    again = begun()
    again[1].replay(Log.load(tmp_path / "log"))
    again[2].load_state_dict(told)
    go(*again)
    assert again[1].log.lrs == whole[1].log.lrs
    pairs = zip(whole[0].parameters(), again[0].parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_parameters_without_their_module() -> None:
    module = net()
    optimizer = ZerothOrder(module.parameters(), 0.02, method="zo_sgd")
    other, same = trained("zo_sgd")
    for _ in range(6):
        optimizer.step(loss_of(module))
    assert torch.equal(numbers(module), numbers(other))
    assert same.log.told == optimizer.log.told
    tangents = ZerothOrder(module.parameters(), 0.02, method="forward_gradient")
    with pytest.raises(ConfigError, match="need the module"):
        tangents.step(loss_of(module))


def test_wrong_use_ends_in_a_sentence() -> None:
    module = net()
    with pytest.raises(ConfigError, match="unknown method mzo; did you mean mezo"):
        ZerothOrder(module, 0.1, method="mzo")
    with pytest.raises(ConfigError, match="lr=-1"):
        ZerothOrder(module, -1.0)
    with pytest.raises(ConfigError, match="full=closure"):
        ZerothOrder(module, 0.1, method="mezo_svrg").step(loss_of(module))
    with pytest.raises(ConfigError, match="log"):
        ZerothOrder(module, 0.1).state_dict()
    with pytest.raises(ConfigError, match="one group"):
        ZerothOrder(module, 0.1).add_param_group({"params": [torch.zeros(2)]})
    for p in module.parameters():
        p.requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        ZerothOrder(module, 0.1)


@pytest.mark.more
@pytest.mark.parametrize("method", BY_NAME)
def test_a_step_of_which_nothing_is_known_goes_nowhere(method) -> None:  # type: ignore[no-untyped-def]
    """Whatever the steps before have learned: momentum does not coast."""
    module, optimizer = trained(method, 1 if type(method) is METHODS["cge"] else 3)
    before = numbers(module)

    def lost() -> torch.Tensor:
        return loss_of(module)() * torch.nan

    optimizer.step(lost, full=lost)
    assert torch.equal(numbers(module), before)


def test_a_subspace_is_no_larger_than_the_module() -> None:
    layer = nn.Linear(2, 1)  # three numbers
    optimizer = ZerothOrder(layer, 1e-2, method="guided_es")
    for _ in range(6):
        optimizer.step(lambda: layer(torch.ones(2, 2)).square().mean())
    assert all(p.isfinite().all() for p in layer.parameters())


def test_a_closure_that_goes_backward_is_told_why_it_cannot() -> None:
    module = net()
    optimizer = ZerothOrder(module, 0.1, method="mezo")

    def usual() -> torch.Tensor:
        loss = loss_of(module)()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="does not require grad") as told:
        optimizer.step(usual)
    assert "leave out loss.backward()" in str(told.value)
