"""Laws of the estimate: unbiased for any feedback, its second moment, exact where it must be."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedzo.finetuning.activity.optimizer import ActivityZO
from fedzo.finetuning.activity.schedule import ActivityConfig, Form
from fedzo.randomness import stream

LOSSES = nn.CrossEntropyLoss(reduction="none")
EPS = ActivityConfig(eps=1e-4)


def normals(*shape: int) -> Tensor:
    return torch.from_numpy(stream(1, "laws", *shape).standard_normal(shape))


class Words(nn.Module):
    """An embedding and a layer, both with tokens, whose mean is read."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.head = nn.Embedding(5, 3), nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(self.embed(tokens))).mean(1))


def image_net() -> nn.Module:
    layers = [nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 2, 2, stride=2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(2, 3))


def dense_net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


NETS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "dense": (dense_net, normals(4, 6)),
    "convolution": (image_net, normals(4, 1, 5, 5)),
    "embedding": (Words, torch.arange(12).reshape(4, 3) % 5),
}
TARGETS = torch.tensor([0, 1, 2, 0])


def made(name: str, **settings: object) -> tuple[nn.Module, Tensor, ActivityZO]:
    make, x = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = make().double()
    return net, x, ActivityZO(net, LOSSES, config=EPS, **settings)  # type: ignore[arg-type]


def by_autograd(net: nn.Module, x: Tensor, y: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    loss = LOSSES(net(x), y).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def gradient(optimizer: ActivityZO) -> Tensor:
    parts = [p.grad for p in optimizer.sites.parameters]
    return torch.cat([p.flatten() for p in parts if p is not None]).clone()


def give_feedback(optimizer: ActivityZO, x: Tensor, net: nn.Module, scale: float) -> None:
    """Let some A be trusted, whatever it is."""
    optimizer.estimate(lambda: (net(x), TARGETS.repeat(len(x) // 4)), "node")
    assert optimizer.feedback is not None
    state = optimizer.feedback.state_dict()
    state["weights"] = scale * normals(*state["weights"].shape).float()
    state["record"] = torch.tensor([4.0, 0.5, 1.0, 1.0], dtype=torch.float64)
    optimizer.feedback.load_state_dict(state)
    assert optimizer.feedback.is_trusted


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("scale", [0.0, 1.0], ids=["no feedback", "any feedback"])
def test_its_mean_is_the_gradient(name: str, scale: float) -> None:
    """Copies of a batch have noise of their own, so one estimate is the mean of many."""
    net, x, optimizer = made(name)
    many = x.repeat(200, *[1] * (x.dim() - 1))
    truth = by_autograd(net, x, TARGETS, optimizer.sites.parameters)
    form: Form = "node"
    if scale:
        give_feedback(optimizer, many, net, scale)
        form = "unbiased"
    draws = []
    for _ in range(30):
        optimizer.estimate(lambda: (net(many), TARGETS.repeat(200)), form)
        if scale:
            give_feedback(optimizer, many, net, scale)
        draws.append(gradient(optimizer))
    found = torch.stack(draws)
    mean, error = found.mean(0), found.std(0) / 30**0.5
    assert ((mean - truth).abs() <= 5 * error + 1e-6).all()
    assert torch.cosine_similarity(mean, truth, dim=0) > 0.98
    assert (mean.norm() / truth.norm() - 1).abs() < 5 * error.norm() / truth.norm()


@pytest.mark.more
@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_its_second_moment_is_1_plus_n_rho_over_b(scale: float) -> None:
    """Signs leave one of N numbers without noise: 1 + (N - 1) rho / b, rho of what is not fed."""
    n, b = 40, 8
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(6, n), nn.Tanh(), nn.Linear(n, 3)).double()
    x, y = normals(b, 6), torch.arange(b) % 3
    optimizer = ActivityZO(net, LOSSES, sites="0", config=EPS)
    truth = by_autograd(net, x, y, optimizer.sites.parameters)
    hidden = net[0](x).detach().requires_grad_()
    z = net[2](net[1](hidden))
    [rest] = torch.autograd.grad(LOSSES(z, y).sum(), hidden)
    form: Form = "node"
    draws = []
    for _ in range(400):
        if scale:
            give_feedback(optimizer, x, net, scale)
            form = "unbiased"
        optimizer.estimate(lambda: (net(x), y), form)
        draws.append(gradient(optimizer).square().sum() / truth.square().sum())
    if scale:
        assert optimizer.feedback is not None
        e = torch.softmax(z, 1) - nn.functional.one_hot(y, 3)
        give_feedback(optimizer, x, net, scale)
        rest = rest - (1 - hidden.tanh().square()) * (e @ optimizer.feedback.weights.double().T)
    each = rest.square().sum(1) * (x.square().sum(1) + 1)  # |g_i|^2, weights and biases
    rho = float(each.detach().mean() / truth.square().sum())
    found = torch.stack(draws)
    error = float(found.std()) / 400**0.5
    assert abs(float(found.mean()) - (1 + (n - 1) * rho / b)) < 5 * error
    assert abs(float(found.mean()) - (1 + n * rho / b)) < 5 * error


def test_a_chain_of_single_numbers_by_hand() -> None:
    """h = w x, z = v h, l = z^2 / 2: signs have square 1, so any probe gives the derivative."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    net[0].weight.data.fill_(3.0)
    net[1].weight.data.fill_(2.0)
    optimizer = ActivityZO(net, lambda z, y: (z - y).square().sum(1) / 2)
    x, y = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)
    loss = optimizer.estimate(lambda: (net(x), y), "node")
    assert loss == pytest.approx((6.0**2 + 12.0**2) / 4, rel=1e-5)
    # d l / d w = z v x: 6 2 1 and 12 2 2; d l / d v = z h: 6 3 and 12 6
    assert net[0].weight.grad.item() == pytest.approx((12 + 48) / 2, rel=1e-3)
    assert net[1].weight.grad.item() == pytest.approx((18 + 72) / 2, rel=1e-5)


def test_in_a_linear_net_the_feedback_becomes_back_propagation() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)).double()
    x, y = normals(32, 6), torch.arange(32) % 3
    optimizer = ActivityZO(net, LOSSES, config=ActivityConfig(eps=1e-4, ridge=1e-6, solve_every=8))
    for _ in range(10):
        optimizer.estimate(lambda: (net(x), y))
    assert optimizer.explained == pytest.approx(1, abs=1e-6)
    truth = by_autograd(net, x, y, optimizer.sites.parameters)
    for form in ("biased", "unbiased"):
        optimizer.estimate(lambda: (net(x), y), form)  # type: ignore[arg-type]
        torch.testing.assert_close(gradient(optimizer), truth, rtol=1e-3, atol=1e-5)
    assert optimizer.feedback is not None
    way = net[2].weight @ net[1].weight
    torch.testing.assert_close(optimizer.feedback.weights[:5].double(), way.T, rtol=1e-3, atol=1e-4)


def test_feedback_that_explains_nothing_feeds_nothing_back() -> None:
    net, x, optimizer = made("dense")
    give_feedback(optimizer, x, net, 1.0)
    assert optimizer.feedback is not None
    state = optimizer.feedback.state_dict()
    state["record"][1] = 2.0  # missed twice of what moved
    optimizer.feedback.load_state_dict(state)
    assert optimizer.explained == -1
    assert optimizer.form == "unbiased"
    optimizer.estimate(lambda: (net(x), TARGETS), "biased")
    grown = [p.grad is not None and bool(p.grad.any()) for p in net.parameters()]
    assert grown == [False, False, False, False, True, True]


def test_the_heads_gradient_is_exact_whatever_the_noise() -> None:
    net, x, optimizer = made("dense")
    optimizer.estimate(lambda: (net(x), TARGETS), "node")
    net.zero_grad()
    own = ActivityZO(net, LOSSES, sites="4", config=EPS)
    own.estimate(lambda: (net(x), TARGETS), "node")
    truth = by_autograd(net, x, TARGETS, own.sites.parameters)
    torch.testing.assert_close(gradient(own), truth, rtol=1e-6, atol=1e-7)


def test_shared_noise_tells_the_sum_over_tokens() -> None:
    """Where all tokens of an example are alike, a share for each of 1/T is the gradient."""
    net, _, optimizer = made("embedding", share_tokens=True)
    x = torch.arange(4).unsqueeze(1).expand(4, 3)
    many = x.repeat(300, 1)
    truth = by_autograd(net, x, TARGETS, optimizer.sites.parameters)
    draws = []
    for _ in range(20):
        optimizer.estimate(lambda: (net(many), TARGETS.repeat(300)), "node")
        draws.append(gradient(optimizer))
    found = torch.stack(draws)
    mean, error = found.mean(0), found.std(0) / 20**0.5
    assert ((mean - truth).abs() <= 5 * error + 1e-6).all()
