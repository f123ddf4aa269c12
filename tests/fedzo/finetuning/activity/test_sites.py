"""Which layers are sites, and what passes do to them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedzo.errors import ConfigError, ObjectiveError
from fedzo.estimation.keys import Key
from fedzo.finetuning.activity.calls import Call, rows, widths
from fedzo.finetuning.activity.noise import Noise
from fedzo.finetuning.activity.sites import Sites
from fedzo.randomness import stream


class Tied(nn.Module):
    """Tokens in, scores of tokens out, by the same matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.LayerNorm(4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.inner(self.embed(tokens))).mean(1))


class Twice(nn.Module):
    """One layer that is called twice, with a functional activation after it."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(functional.relu(self.again(x))).tanh())


def made(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return kind()


def noise() -> Noise:
    return Noise(Key(seed=0, parts=("test",)))


TOKENS = torch.arange(10).reshape(2, 5) % 7


def test_all_known_layers_are_sites_and_tied_parameters_count_once() -> None:
    net = made(Tied)
    sites = Sites(net)
    assert list(sites.layers) == ["embed", "inner.0", "head"]
    assert [p.shape for p in sites.parameters] == [(7, 4), (4, 4), (4,)]


def test_patterns_choose_and_frozen_layers_are_left_out() -> None:
    net = made(Twice)
    assert list(Sites(net, "ag*").layers) == ["again"]
    assert list(Sites(net, ["head", "again"]).layers) == ["again", "head"]
    assert list(Sites(made(Tied), ["inner"]).layers) == ["inner.0"]
    net.again.requires_grad_(False)
    assert list(Sites(net).layers) == ["head"]
    with pytest.raises(ConfigError, match="not frozen"):
        Sites(net, "again")
    with pytest.raises(ConfigError, match=r"'tail' names no Linear.*again, head"):
        Sites(net, "tail")


def test_half_of_a_tie_is_refused() -> None:
    with pytest.raises(ConfigError, match="with 'embed' too"):
        Sites(made(Tied), "head")


def test_fused_attention_is_refused_by_name_and_left_alone_otherwise() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert list(Sites(net).layers) == ["linear1", "linear2"]
    for name in ("self_attn", "self_attn.out_proj"):
        with pytest.raises(ConfigError, match="MultiheadAttention reads its projections"):
            Sites(net, name)


def test_the_head_is_the_call_whose_outputs_are_the_modules() -> None:
    net = made(Twice)
    sites = Sites(net)
    x = torch.ones(4, 3)
    sites.locate(lambda: net(x))
    with sites.read() as calls:
        net(x)
    assert [(c.name, c.is_head) for c in calls] == [
        ("again", False), ("again", False), ("head", True),
    ]  # fmt: skip
    assert widths(calls) == (3, 3)
    assert [c.gate is not None for c in calls] == [True, True, False]


def test_a_site_that_is_never_called_is_named() -> None:
    net = made(Twice)
    net.spare = nn.Linear(2, 2)
    sites = Sites(net)
    with pytest.raises(ConfigError, match="spare"):
        sites.locate(lambda: net(torch.ones(1, 3)))


def probed(
    net: nn.Module, x: Tensor, sites: Sites, eps: float
) -> tuple[Tensor, Tensor, list[Call]]:
    with torch.no_grad():
        sites.locate(lambda: net(x))
        with sites.read(noise(), eps) as calls:
            plus = net(x)
        with sites.mirrored(calls, eps):
            minus = net(x)
    return plus, minus, calls


def test_both_sides_of_a_linear_net_by_hand() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    net[1].weight.data = torch.tensor([[1.0, 10.0]])
    plus, minus, calls = probed(net, torch.tensor([[1.0, 1.0]]), Sites(net), 0.5)
    assert calls[0].noise is not None
    [[a, b]] = calls[0].noise.tolist()
    assert {abs(a), abs(b)} == {1.0}
    assert plus.item() == 3 + 70 + 0.5 * (a + 10 * b)
    assert minus.item() == 3 + 70 - 0.5 * (a + 10 * b)
    assert calls[0].inputs.tolist() == [[1.0, 1.0]]


def test_noise_is_independent_in_examples_tokens_and_steps_and_shared_if_told() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(3, 64), nn.Linear(64, 2))
    x = torch.zeros(2, 5, 3)
    _, _, calls = probed(net, x, Sites(net, "0"), 0.1)
    assert calls[0].noise is not None
    assert calls[0].noise.shape == (2, 5, 64)
    flat = calls[0].noise.reshape(10, 64)
    assert (flat @ flat.T / 64 - torch.eye(10)).abs().max() < 5 / 8  # 5 standard errors
    _, _, calls = probed(net, x, Sites(net, "0", share_tokens=True), 0.1)
    assert calls[0].noise is not None
    assert calls[0].noise.shape == (2, 1, 64)
    assert rows(calls).shape == (2, 64)


def test_noise_goes_on_where_it_was_and_does_not_depend_on_what_is_drawn_ahead() -> None:
    one, other = noise(), noise()
    parts = [one.take(size, torch.device("cpu")) for size in (7, 100_000, 5, 60_000)]
    whole = other.take(160_012, torch.device("cpu"))
    assert torch.equal(torch.cat(parts), whole)
    later = noise()
    later.place = 107
    assert torch.equal(later.take(50, torch.device("cpu")), whole[107:157])


def test_hooks_and_parameters_are_as_before_even_after_an_exception() -> None:
    net = made(Twice)
    before = [p.clone() for p in net.parameters()]

    def broken() -> None:
        with Sites(net).read(noise(), 0.1):
            net(torch.ones(1, 3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert not any(part._forward_hooks for part in net.modules())
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_a_second_pass_that_calls_others_is_refused() -> None:
    net = made(Twice)
    sites = Sites(net)
    with torch.no_grad(), sites.read(noise(), 0.1) as calls:
        net(torch.ones(2, 3))
    with (
        pytest.raises(ObjectiveError, match="different layers"),
        torch.no_grad(),
        sites.mirrored(calls, 0.1),
    ):
        net(torch.ones(3, 3))


def test_inputs_that_are_overwritten_later_are_noticed() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = torch.from_numpy(stream(0).standard_normal((2, 3))).float()
    with torch.no_grad(), Sites(net).read() as calls:
        net(x)
    list(calls[0].gradients(torch.ones(2, 3)))
    x.add_(1)
    with pytest.raises(ObjectiveError, match="overwritten"):
        list(calls[0].gradients(torch.ones(2, 3)))
