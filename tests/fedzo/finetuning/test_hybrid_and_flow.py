"""Half zeroth, half first order; and residuals instead of gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from module_nets import loss_of, net, numbers

from fedzo.errors import ConfigError, ObjectiveError
from fedzo.finetuning.flow import follow_residual, safe_step
from fedzo.finetuning.hybrid import HybridZO
from fedzo.finetuning.zeroth_order import ZerothOrder


def sgd(tensors):  # type: ignore[no-untyped-def]
    return torch.optim.SGD(tensors, lr=0.05)


def test_each_half_does_what_it_would_do_alone() -> None:
    both, zeroth, first = net(), net(), net()
    optimizer = HybridZO(both, 0.02, last="2", make=sgd, seed=3)
    loss = optimizer.step(loss_of(both))
    assert loss == pytest.approx(float(loss_of(net())().detach()))
    ZerothOrder(zeroth, 0.02, method="zo_sgd", view="0", seed=3).step(loss_of(zeroth))
    loss_of(first)().backward()
    sgd(first.parameters()).step()
    assert torch.equal(both[0].weight, zeroth[0].weight)
    assert torch.equal(both[2].weight, first[2].weight)
    assert all(p.grad is None and p.requires_grad for p in both.parameters())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_moves_nothing(bad: float) -> None:
    module = net()
    before = numbers(module)
    HybridZO(module, 0.02, last="2", make=sgd).step(lambda: loss_of(module)() * bad)
    assert torch.equal(numbers(module), before)


def test_losses_that_cannot_be_differentiated_are_refused() -> None:
    module = net()
    optimizer = HybridZO(module, 0.02, last="2", make=sgd)
    with pytest.raises(ObjectiveError, match=r"which has no gradient for the last parts"):
        optimizer.step(lambda: loss_of(module)().item())  # type: ignore[arg-type, return-value]
    with pytest.raises(ObjectiveError, match="the loss is 2 numbers"):
        optimizer.step(lambda: loss_of(module)().expand(2))
    assert torch.equal(numbers(module), numbers(net()))
    assert all(p.requires_grad for p in module.parameters())


def test_a_last_part_that_the_loss_does_not_read_stays() -> None:
    module = net()
    module.register_parameter("idle", torch.nn.Parameter(torch.ones(2)))
    optimizer = HybridZO(module, 0.02, last=["2", "idle"], make=sgd)
    optimizer.step(loss_of(module))
    assert torch.equal(module.idle, torch.ones(2))
    assert not torch.equal(module[2].weight, net()[2].weight)


def test_methods_that_ask_for_all_examples_are_given_them() -> None:
    module = net()
    optimizer = HybridZO(module, 0.02, last="2", make=sgd, method="mezo_svrg")
    optimizer.step(loss_of(module), full=loss_of(module))
    assert optimizer.zeroth.spent.on_all > 0


def test_it_goes_down_and_refuses_to_be_one_half_alone() -> None:
    module = net()
    optimizer = HybridZO(module, 0.02, last="2", make=sgd)
    before = numbers(module)
    losses = [optimizer.step(loss_of(module)) for _ in range(60)]
    assert losses[-1] < losses[0] - 0.2
    assert (numbers(module)[:48] != before[:48]).all()
    with pytest.raises(ConfigError, match="whole module"):
        HybridZO(module, 0.02, last=["0", "2"], make=sgd)
    with pytest.raises(ConfigError, match="'5' matches none"):
        HybridZO(module, 0.02, last="5", make=sgd)


@settings(max_examples=30)
@given(
    real=st.floats(0.2, 2), imaginary=st.floats(-1, 1), share=st.sampled_from([0.5, 0.9, 1.1, 1.5])
)
def test_a_linear_map_is_inverted_below_the_bound_of_its_eigenvalues_and_not_above(
    real: float, imaginary: float, share: float
) -> None:
    a = torch.tensor([[real, -imaginary], [imaginary, real]], dtype=torch.float64)
    bound = 2 * real / (real**2 + imaginary**2)
    y, x = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    lengths = [r for _, r in follow_residual(lambda v: a @ v, y, x, eta=share * bound, steps=60)]
    assert (lengths[-1] < lengths[0]) == (share < 1)
    found = safe_step(lambda v: a @ v, x, radius=0.1)
    assert found == pytest.approx(bound, rel=1e-6)


def test_bad_steps_and_shapes_are_refused() -> None:
    x = torch.zeros(3)
    with pytest.raises(ConfigError, match="eta=0"):
        next(follow_residual(lambda v: v, x, x, eta=0.0, steps=1))
    with pytest.raises(ConfigError, match="shape"):
        next(follow_residual(lambda v: v.sum() * torch.ones(2, 3), x, x, eta=0.1, steps=1))
    assert safe_step(lambda v: -v, x, radius=0.1) == 0.0
