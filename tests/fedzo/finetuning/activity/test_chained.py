"""Layers that get their derivative from the site that reads them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedzo.errors import ConfigError
from fedzo.finetuning.activity.optimizer import ActivityZO
from fedzo.finetuning.activity.schedule import ActivityConfig
from fedzo.randomness import stream

LOSSES = nn.CrossEntropyLoss(reduction="none")
TARGETS = torch.tensor([0, 1, 2, 0])


class Block(nn.Module):
    """Tokens, and a network with a hidden layer beside a connection that skips it."""

    def __init__(self, act: Callable[[Tensor], Tensor] = functional.gelu) -> None:
        super().__init__()
        self.act = act
        self.first, self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head((x + self.outer(self.act(self.inner(x)))).tanh().mean(1))


class ReadTwice(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        hidden = self.act(self.inner(x))
        return self.head((self.outer(hidden) + hidden.mean(-1, keepdim=True)).mean(1))


class ReadRaw(Block):
    def forward(self, x: Tensor) -> Tensor:
        raw = self.inner(self.first(x))
        return self.head((self.outer(self.act(raw)) + raw.mean(-1, keepdim=True)).mean(1))


class ReadByOthers(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head((x + self.outer(self.act(self.inner(x)).flip(0))).mean(1))


class Tripled(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return 3 * super().forward(inputs)


class ReadByItsOwn(Block):
    def __init__(self) -> None:
        super().__init__()
        self.outer = Tripled(6, 4)


def normals(*shape: int) -> Tensor:
    return torch.from_numpy(stream(1, "chained", *shape).standard_normal(shape))


def made(kind: Callable[[], nn.Module] = Block) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return kind().double()


def on(net: nn.Module, x: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (net(x), TARGETS.repeat(len(x) // 4))


@pytest.mark.parametrize("act", [nn.Tanh(), nn.ReLU(inplace=True), nn.GELU()], ids=str)
def test_what_the_head_reads_is_exact(act: nn.Module) -> None:
    net = made(lambda: nn.Sequential(nn.Linear(5, 7), act, nn.Linear(7, 3)))
    x = normals(4, 5)
    optimizer = ActivityZO(net, LOSSES, sites="2", chained="0")
    loss = optimizer.estimate(on(net, x))
    own = [p.grad for p in net.parameters()]
    wanted = torch.autograd.grad(LOSSES(net(x), TARGETS).mean(), [*net.parameters()])
    assert loss == pytest.approx(float(LOSSES(net(x), TARGETS).mean()))
    for found, exact in zip(own, wanted, strict=True):
        assert found is not None
        assert torch.allclose(found, exact, rtol=1e-5, atol=1e-7)


def test_in_a_block_its_mean_is_the_gradient() -> None:
    net = made()
    many = normals(4, 2, 3).repeat(200, 1, 1)
    optimizer = ActivityZO(
        net, LOSSES, sites=["first", "outer", "head"], chained="inner",
        config=ActivityConfig(eps=1e-4),
    )  # fmt: skip
    parameters = optimizer.sites.parameters
    loss = LOSSES(net(many), TARGETS.repeat(200)).mean()
    truth = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    draws = []
    for _ in range(40):
        optimizer.estimate(on(net, many), "node")
        draws.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    found = torch.stack(draws)
    error = found.std(0) / 40**0.5
    assert ((found.mean(0) - truth).abs() <= 5 * error + 1e-6).all()
    assert torch.cosine_similarity(found.mean(0), truth, dim=0) > 0.98


def test_it_takes_no_noise() -> None:
    net = made()
    optimizer = ActivityZO(net, LOSSES, sites=["outer", "head"], chained="inner")
    optimizer.estimate(on(net, normals(4, 2, 3)))
    assert optimizer.feedback is not None
    assert optimizer.feedback.widths == (2 * 4,)


@pytest.mark.parametrize("kind", [ReadTwice, ReadRaw, ReadByOthers, ReadByItsOwn])
def test_other_readers_are_refused(kind: type[nn.Module]) -> None:
    net = made(kind)
    optimizer = ActivityZO(net, LOSSES, sites=["outer", "head"], chained="inner")
    with pytest.raises(ConfigError, match=r"chained layer 'inner'.*one Linear site reads"):
        optimizer.step(on(net, normals(4, 2, 3)))


def test_a_layer_that_no_site_reads_is_refused() -> None:
    net = made()
    optimizer = ActivityZO(net, LOSSES, sites="head", chained="inner")
    with pytest.raises(ConfigError, match="chained layer 'inner'"):
        optimizer.step(on(net, normals(4, 2, 3)))


def test_many_numbers_share_their_tokens() -> None:
    x = normals(4, 600, 3)
    net = made()
    optimizer = ActivityZO(net, LOSSES, sites=["first", "head"])
    told = ActivityZO(net, LOSSES, sites=["first", "head"], feedback="off")
    for own in (optimizer, told):
        own.estimate(on(net, x[:, :9]))
        assert not own.sites.share_tokens
    optimizer = ActivityZO(net, LOSSES, sites=["first", "outer", "head"], chained="inner")
    optimizer.estimate(on(net, x))
    assert optimizer.sites.share_tokens
    assert optimizer.feedback is not None
    assert optimizer.feedback.widths == (4, 4)
    told.estimate(on(net, normals(4, 3_000, 3)))
    assert not told.sites.share_tokens


def test_a_feedback_of_gigabytes_is_refused() -> None:
    net = nn.Sequential(nn.Linear(2, 20_000), nn.Tanh(), nn.Linear(20_000, 3)).double()
    optimizer = ActivityZO(net, LOSSES)
    with pytest.raises(ConfigError, match=r"sites=.*20,000 numbers an example.*at most 16,384"):
        optimizer.step(on(net, normals(4, 2)))


def test_warming_up_teaches_the_feedback_and_moves_nothing() -> None:
    net, x = made(), normals(16, 2, 3)
    before = [p.clone() for p in net.parameters()]
    optimizer = ActivityZO(net, LOSSES, config=ActivityConfig(warm_up=16, solve_every=8))
    for _ in range(16):
        assert optimizer.form == "unbiased"
        optimizer.step(on(net, x))
    assert all(torch.equal(p, own) for p, own in zip(net.parameters(), before, strict=True))
    assert optimizer.explained > 0.3
    assert optimizer.form == "biased"
    optimizer.step(on(net, x))
    assert not torch.equal(next(net.parameters()), before[0])
