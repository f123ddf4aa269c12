"""Quantized layers: how far weights are off, what is trained, and QZO on them."""

import pytest
import torch
from module_nets import loss_of, net
from torch import nn

from fedzo.errors import ConfigError
from fedzo.finetuning.methods.structured import QZO
from fedzo.finetuning.quantized import QuantizedLinear, quantize_
from fedzo.finetuning.zeroth_order import ZerothOrder


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_off_by_half_a_scale_at_most(bits: int) -> None:
    linear = nn.Linear(12, 5)
    made = QuantizedLinear(linear, bits=bits, group=4)
    error = (made.weight - linear.weight).abs().view(5, 3, 4)
    assert (error <= made.scales.unsqueeze(2) / 2 + 1e-7).all()
    assert made.levels.abs().max() <= 2 ** (bits - 1) - 1
    x = torch.ones(2, 12)
    assert torch.allclose(made(x), x @ made.weight.T + linear.bias)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_coarse_types_are_off_by_no_more_than_their_own_rounding(bits: int) -> None:
    linear = nn.Linear(64, 50, bias=False)
    exact = linear.weight.detach().bfloat16().float()
    made = QuantizedLinear(linear.bfloat16(), bits=bits, group=8)
    error = (made.weight.float() - exact).abs().view(50, 8, 8)
    rounding = exact.abs().view(50, 8, 8) * 2.0**-7
    assert (error <= made.scales.float().unsqueeze(2) / 2 + rounding).all()
    assert made.levels.abs().max() == 2 ** (bits - 1) - 1
    with pytest.raises(ConfigError, match="group=0"):
        QuantizedLinear(nn.Linear(4, 4), group=0)


def test_only_scales_are_trained_and_stay_at_least_zero() -> None:
    module = quantize_(net(), bits=4, group=2)
    levels = [part.levels.clone() for part in module if isinstance(part, QuantizedLinear)]
    optimizer = ZerothOrder(module, 0.01, method="qzo")
    assert optimizer.view.names == ("0.scales", "2.scales")
    before = float(loss_of(module)().detach())
    for _ in range(60):
        optimizer.step(loss_of(module))
    assert float(loss_of(module)().detach()) < before
    kept = [part.levels for part in module if isinstance(part, QuantizedLinear)]
    assert all(torch.equal(a, b) for a, b in zip(levels, kept, strict=True))
    wild = ZerothOrder(module, 100.0, method="qzo")
    wild.step(loss_of(module))
    assert all(scale.min() >= 0 for scale in wild.view)


def test_slopes_are_clipped() -> None:
    moves = []
    for clip in (1e-3, 1e9):
        module = quantize_(net(), group=2)
        before = torch.cat([p.detach().reshape(-1).clone() for p in module.parameters()])
        ZerothOrder(module, 1e-3, method=QZO(clip=clip)).step(lambda: 1e6 * loss_of(module)())  # noqa: B023
        after = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
        moves.append(float((after - before).abs().max()))
    assert moves[0] < 1e-5 < moves[1]


def test_what_cannot_be_quantized_is_refused() -> None:
    with pytest.raises(ConfigError, match="no Linear layer"):
        quantize_(nn.Conv2d(1, 1, 1))
    with pytest.raises(ConfigError, match="group=4"):
        QuantizedLinear(nn.Linear(6, 2), group=4)
    with pytest.raises(ConfigError, match="quantize_"):
        ZerothOrder(net(), 0.1, method="qzo")


def test_a_bare_layer_is_trained_by_its_scales() -> None:
    layer = QuantizedLinear(nn.Linear(4, 4))
    before = layer.scales.detach().clone()
    optimizer = ZerothOrder(layer, 1e-2, method="qzo")
    optimizer.step(lambda: layer(torch.ones(2, 4)).square().mean())
    assert not torch.equal(layer.scales, before)
