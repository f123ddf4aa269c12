"""Adapters and rows: nothing changes at first, they alone are trained, and they merge."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from module_nets import INPUTS, loss_of, net
from torch import nn

from fedzo.errors import ConfigError
from fedzo.finetuning.adapters import LowRank, Rows, adapt_, merge_
from fedzo.finetuning.quantized import QuantizedLinear, quantize_
from fedzo.finetuning.zeroth_order import ZerothOrder


def trained_names(module: nn.Module) -> list[str]:
    return [name for name, p in module.named_parameters() if p.requires_grad]


def test_a_network_does_at_first_what_it_did() -> None:
    plain, adapted = net(), adapt_(net(), rank=2)
    assert torch.equal(plain(INPUTS), adapted(INPUTS))
    assert trained_names(adapted) == ["0.down", "0.up", "2.down", "2.up"]
    held, other = adapt_(net(), rank=2), adapt_(net(), rank=2, seed=1)
    assert torch.equal(held[0].down, adapted[0].down)
    assert not torch.equal(other[0].down, adapted[0].down)
    assert not torch.equal(adapted[0].down[:, :3], adapted[2].down[:, :3])


def test_values_train_adapters_alone_and_merging_changes_nothing() -> None:
    module = adapt_(net(), rank=2, scale=2.0)
    frozen = [p.clone() for p in module.parameters() if not p.requires_grad]
    before = float(loss_of(module)().detach())
    optimizer = ZerothOrder(module, 0.05, settings={"num_directions": 4})
    for _ in range(40):
        optimizer.step(loss_of(module))
    now = [p for p in module.parameters() if not p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(frozen, now, strict=True))
    assert float(loss_of(module)().detach()) < before - 0.01
    again = adapt_(net(), rank=2, scale=2.0)
    ZerothOrder(again, 1.0, settings={"num_directions": 4}).replay(optimizer.log)
    assert torch.equal(again[0].up, module[0].up)
    wanted = module(INPUTS)
    merge_(module)
    assert trained_names(module) == trained_names(net())
    torch.testing.assert_close(module(INPUTS), wanted)


def test_layers_whose_weights_are_made_of_others_are_merged_to_plain_ones() -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Linear(4, 2))
    adapt_(module, rank=1)
    nn.init.ones_(module[0].up)
    inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    wanted = module(inputs)
    merge_(module)
    torch.testing.assert_close(module(inputs), wanted)
    assert trained_names(module) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_layers_are_chosen_by_name_and_shared_ones_are_adapted_once() -> None:
    assert trained_names(adapt_(net(), rank=1, layers=["0"])) == ["0.down", "0.up"]
    kept = adapt_(net(), rank=1, trained=["2"])
    assert trained_names(kept) == ["0.down", "0.up", "2.weight", "2.bias"]
    shared = nn.Linear(6, 6)
    twice = adapt_(nn.Sequential(shared, nn.Tanh(), shared), rank=1)
    assert twice[0] is twice[2]
    assert trained_names(twice) == ["0.down", "0.up"]
    with pytest.raises(ConfigError, match="'7' matches no name"):
        adapt_(net(), rank=1, layers=["7"])
    with pytest.raises(ConfigError, match=r"no Linear or Conv1d or .* layer beside 0, 2"):
        adapt_(net(), rank=1, trained=["0", "2"])
    with pytest.raises(ConfigError, match="'heda' matches no name"):
        adapt_(net(), rank=1, trained=["heda"])
    with pytest.raises(ConfigError, match="has adapters already"):
        adapt_(adapt_(net(), rank=1), rank=1)


def test_what_is_refused_leaves_the_module_as_it_was() -> None:
    module = net()  # layers (6, 8) and (8, 3)
    for rank, sentence in ((9, "rank=9 must be from 1 to 6"), (4, "rank=4 must be from 1 to 3")):
        with pytest.raises(ConfigError, match=sentence):
            adapt_(module, rank=rank)
    assert trained_names(module) == trained_names(net())
    assert all(isinstance(module[i], nn.Linear) for i in (0, 2))


def test_weights_that_others_share_stay_when_adapters_are_merged() -> None:
    table, out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    out.weight = table.weight
    module = adapt_(nn.Sequential(table, out), rank=2)
    with torch.no_grad():
        module[1].up.fill_(0.3)
    tokens = torch.arange(5)
    wanted = module(tokens)
    torch.testing.assert_close(merge_(module)(tokens), wanted)


@pytest.mark.parametrize("training", [True, False])
def test_torchs_own_attention_reads_adapted_weights(training: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(training)
    inputs = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = layer(inputs)
        adapt_(layer, rank=2)
        torch.testing.assert_close(layer(inputs), wanted)
        layer.linear1.up.fill_(0.5)
        assert not torch.allclose(layer(inputs), wanted)


def convolutions() -> nn.Sequential:
    """One that pads, one in groups, one in one dimension, and what is left."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 6, 3, stride=2, padding=1, padding_mode="reflect"),
            nn.Conv2d(6, 6, 3, groups=6, bias=False),
            nn.Flatten(2),
            nn.Conv1d(6, 4, 2, dilation=2),
            nn.Flatten(),
            nn.Linear(4 * 23, 3),
        )


def test_convolutions_take_adapters_of_their_own_kind() -> None:
    plain, adapted = convolutions(), adapt_(convolutions(), rank=2, trained=["5"])
    images = torch.randn(5, 2, 14, 14, generator=torch.Generator().manual_seed(1))
    assert torch.equal(plain(images), adapted(images))
    assert [tuple(adapted[place].down.shape) for place in (0, 1, 3)] == [(2, 18), (2, 9), (2, 12)]

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(adapted(images), torch.tensor([0, 1, 2, 0, 1]))

    frozen = [p.clone() for p in adapted.parameters() if not p.requires_grad]
    before = float(loss().detach())
    optimizer = ZerothOrder(adapted, 0.05, settings={"num_directions": 4})
    for _ in range(40):
        optimizer.step(loss)
    assert float(loss().detach()) < before - 0.05
    now = [p for p in adapted.parameters() if not p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(frozen, now, strict=True))
    wanted = adapted(images)
    assert not torch.allclose(wanted, plain(images))
    torch.testing.assert_close(merge_(adapted)(images), wanted)
    assert trained_names(adapted) == trained_names(plain)


def test_a_convolution_with_a_forward_of_its_own_keeps_it() -> None:
    class Same(nn.Conv2d):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            padded = nn.functional.pad(inputs, (0, 2, 0, 2))
            return nn.functional.conv2d(padded, self.weight, self.bias)

    plain = nn.Sequential(Same(1, 3, 3))
    images = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    wanted = plain(images).detach()
    adapted = adapt_(plain, rank=2)
    assert torch.equal(adapted(images), wanted)
    nn.init.ones_(adapted[0].up)
    moved = adapted(images)
    assert moved.shape == wanted.shape
    assert not torch.allclose(moved, wanted)
    torch.testing.assert_close(merge_(adapted)(images), moved)


def test_threads_that_call_an_adapted_convolution_leave_it_as_it_is() -> None:
    module = adapt_(convolutions(), rank=2)
    nn.init.ones_(module[0].up)
    images = torch.randn(8, 2, 14, 14, generator=torch.Generator().manual_seed(1))

    def asked(_: int) -> torch.Tensor:
        with torch.no_grad():
            return module(images)

    wanted, held = asked(0), module[0].inner.weight
    with ThreadPoolExecutor(4) as threads:
        assert all(torch.equal(one, wanted) for one in threads.map(asked, range(64)))
    assert module[0].inner.weight is held


def test_without_a_choice_convolutions_that_are_too_narrow_stay_as_they_are() -> None:
    made = adapt_(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 8)), rank=4)
    assert trained_names(made) == ["2.down", "2.up"]
    for lazy in (nn.LazyLinear(3), nn.LazyConv1d(3, 2)):
        module = nn.Sequential(nn.Linear(4, 4), lazy)
        with pytest.raises(ConfigError, match=r"'1'=of no shape yet must be initialized"):
            adapt_(module, rank=2)
        assert isinstance(module[0], nn.Linear)
    weighted = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 1))
    beside = adapt_(nn.Sequential(weighted, nn.Flatten(), nn.Linear(4, 4)), rank=2)
    assert trained_names(beside) == ["2.down", "2.up"]


def test_hooks_of_an_adapted_convolution_are_called() -> None:
    module, seen = convolutions(), list[tuple[int, ...]]()
    module[0].register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape)))
    adapt_(module, rank=2)(torch.ones(1, 2, 14, 14))
    assert seen == [(1, 6, 7, 7)]


def test_adapters_of_convolutions_are_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match="rank=7 must be from 1 to 6, by the widths of 0"):
        adapt_(convolutions(), rank=7, layers=["0"])
    made = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 3, 3)))
    with pytest.raises(ConfigError, match="Conv2d has a weight that is made of others"):
        adapt_(made, rank=1)
    assert trained_names(adapt_(convolutions(), rank=2, layers=["1"])) == ["1.down", "1.up"]


def test_rows_are_whole_numbers() -> None:
    with pytest.raises(ConfigError, match=r"tokens=\[1.5\] must be whole numbers"):
        Rows(nn.Embedding(4, 2), iter([1.5]))  # type: ignore[list-item]


def test_bfloat16_stays() -> None:
    module = adapt_(net().bfloat16(), rank=2)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert isinstance(module[0], LowRank)


def test_quantized_layers_take_the_place_of_shared_ones_once() -> None:
    shared = nn.Linear(6, 6)
    twice = quantize_(nn.Sequential(shared, shared), group=6)
    assert isinstance(twice[0], QuantizedLinear)
    assert twice[0] is twice[1]


def test_rows_of_tokens_alone_are_trained() -> None:
    table = nn.Embedding(9, 4)
    tokens = torch.tensor([[0, 3, 8], [5, 3, 1]])
    wanted, rows = table(tokens), Rows(table, [5, 3])
    assert torch.equal(rows(tokens), wanted)
    assert trained_names(rows) == ["rows"]
    optimizer = ZerothOrder(rows, 0.1, settings={"num_directions": 8})
    for _ in range(20):
        optimizer.step(lambda: rows(tokens).square().mean())
    changed = (rows(tokens) != wanted).any(-1)
    assert changed.tolist() == [[False, True, False], [True, True, False]]
    assert float(rows(tokens).square().mean()) < float(wanted.square().mean())
    for wrong in ([], [-1], [9]):
        with pytest.raises(ConfigError, match="one or more of the 9 rows"):
            Rows(table, wrong)
