"""The optimizer as torch's users meet it: it trains, repeats, and leaves the rest alone."""

import copy
import pickle
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedzo.errors import ConfigError, FedzoWarning
from fedzo.finetuning.activity.optimizer import ActivityZO
from fedzo.finetuning.activity.schedule import ActivityConfig, FeedbackName
from fedzo.randomness import stream

LOSSES = nn.CrossEntropyLoss(reduction="none")
SHORT = ActivityConfig(solve_every=8)


def data() -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(stream(0, "x").standard_normal((64, 6))).float()
    return x, (x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] > 0).long()


X, Y = data()


def made(seed: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)]
        return nn.Sequential(*layers)


def on(net: nn.Module, first: int = 0, size: int = 16) -> Callable[[], tuple[Tensor, Tensor]]:
    rows = torch.arange(first, first + size) % len(X)
    return lambda: (net(X[rows]), Y[rows])


def train(net: nn.Module, optimizer: ActivityZO, steps: int, start: int = 0) -> list[float]:
    return [optimizer.step(on(net, 16 * step)) for step in range(start, start + steps)]


def loss_of(net: nn.Module) -> float:
    with torch.no_grad():
        return float(LOSSES(net(X), Y).mean())


@pytest.mark.more
@pytest.mark.parametrize("feedback", ["auto", "biased", "unbiased", "off"])
@pytest.mark.parametrize("inner", ["adam", "sgd"])
def test_it_trains_with_every_form(feedback: FeedbackName, inner: str) -> None:
    net = made()
    lr = 0.01 if inner == "adam" else 0.1
    before = loss_of(net)
    train(net, ActivityZO(net, LOSSES, lr, feedback=feedback, inner=inner, config=SHORT), 150)
    assert loss_of(net) < 0.85 * before


def test_a_step_moves_as_the_inner_optimizer_would_by_its_gradients() -> None:
    net = made()
    twin = copy.deepcopy(net)
    plain = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    optimizer = ActivityZO(
        net, LOSSES, inner=lambda own: torch.optim.SGD(own, lr=0.1, momentum=0.9)
    )
    for step in range(5):
        optimizer.step(on(net, step))
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            q.grad = p.grad
        plain.step()
        assert all(
            torch.equal(p, q) for p, q in zip(net.parameters(), twin.parameters(), strict=True)
        )


def test_schedulers_of_torch_set_the_lr() -> None:
    net = made()
    optimizer = ActivityZO(net, LOSSES, 0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.0)
    optimizer.step(on(net))
    scheduler.step()
    before = [p.clone() for p in net.parameters()]
    optimizer.step(on(net))
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def run(seed: int) -> Tensor:
    net = made()
    train(net, ActivityZO(net, LOSSES, 0.01, seed=seed, config=SHORT), 30)
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("training", [False, True])
def test_no_global_random_state_is_touched(training: bool) -> None:
    def states() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002

    net = made().train(training)
    before = states()
    train(net, ActivityZO(net, LOSSES, config=SHORT), 20)
    assert states() == before


def test_a_state_goes_on_to_the_same_bits() -> None:
    net = made()
    optimizer = ActivityZO(net, LOSSES, 0.01, config=SHORT)
    train(net, optimizer, 20)
    twin = copy.deepcopy(net)
    other = ActivityZO(twin, LOSSES, 0.3, config=SHORT)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for own, module in ((optimizer, net), (other, twin)):
        train(module, own, 20, start=20)
    assert other.param_groups[0]["lr"] == 0.01
    assert other.spent == optimizer.spent
    assert other.explained == optimizer.explained
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), twin.parameters(), strict=True))


def test_forward_passes_are_counted() -> None:
    net = made()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    optimizer = ActivityZO(net, LOSSES, feedback="biased", config=SHORT)
    train(net, optimizer, 8)  # A is solved and not judged
    assert (optimizer.spent.forwards, optimizer.spent.examples) == (17, 17 * 16)
    train(net, optimizer, 9)  # the first judges
    assert optimizer.form == "biased"
    spent = optimizer.spent.forwards
    train(net, optimizer, 16)
    assert optimizer.spent.forwards - spent == 16 + 4
    assert len(calls) == optimizer.spent.forwards


class Noisy(nn.Module):
    """Dropout, a counter and normalization by stored statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(self.drop(torch.relu(self.norm(self.first(x)))))


def test_buffers_modes_and_other_parameters_stay_in_every_mode() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Noisy()
        net.norm.eval()
        for training in (True, False):
            net.train(training)
            net.norm.eval()
            modes = [part.training for part in net.modules()]
            buffers = [b.clone() for b in net.buffers()]
            norm = net.norm.weight.detach().clone()
            train(net, ActivityZO(net, LOSSES, 0.1, config=SHORT), 12)
            assert [part.training for part in net.modules()] == modes
            assert all(torch.equal(b, c) for b, c in zip(net.buffers(), buffers, strict=True))
            assert torch.equal(net.norm.weight, norm)
            assert net.norm.weight.grad is None


def test_both_sides_of_a_probe_drop_out_the_same() -> None:
    """Else the outputs' change over 2 eps would be of the size of 1 / eps."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Noisy()
        net.norm.eval()
        optimizer = ActivityZO(net, LOSSES)
        optimizer.estimate(on(net), "node")
        grown = [
            float(p.grad.abs().max()) for p in optimizer.sites.parameters if p.grad is not None
        ]
        assert max(grown) < 10
        state = torch.get_rng_state()
        optimizer.estimate(on(net), "node")
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        net(X[:16])
        assert torch.equal(torch.get_rng_state(), after)  # as one forward pass leaves it


def test_both_sides_of_a_probe_draw_the_same_by_numpy_and_python() -> None:
    net, seen = made(), list[object]()
    plain = on(net)

    def drawing() -> tuple[Tensor, Tensor]:
        seen.append((np.random.randint(99), random.random()))  # noqa: NPY002
        return plain()

    optimizer = ActivityZO(net, LOSSES)
    for _ in range(3):
        optimizer.estimate(drawing, "node")
    assert seen[0] == seen[1] == seen[2], "the first step also finds the sites"
    assert seen[3] == seen[4] != seen[2]
    assert seen[5] == seen[6] != seen[4]


def test_normalization_by_the_batch_is_refused() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Noisy()
    with pytest.raises(ConfigError, match="'norm' normalizes by the batch"):
        ActivityZO(net, LOSSES).step(on(net))


def test_frozen_parameters_of_a_site_stay() -> None:
    net = made()
    net[0].weight.requires_grad_(False)
    net[2].requires_grad_(False)
    before = [p.detach().clone() for p in net.parameters()]
    train(net, ActivityZO(net, LOSSES, 0.1), 3)
    moved = [not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True)]
    assert moved == [False, True, False, False, True, True]


class Skips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = (nn.Linear(4, n) for n in (4, 4, 3))
        self.use = True

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        if self.use:
            hidden = hidden + torch.relu(self.second(hidden))
        return self.head(hidden) / 2  # so no head is located


def test_a_layer_that_a_pass_leaves_out_or_that_is_frozen_stays() -> None:
    net = Skips()
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(8) % 3
    optimizer = ActivityZO(net, LOSSES, 0.1, inner="sgd", feedback="off")
    for _ in range(3):
        optimizer.step(lambda: (net(inputs), targets))
    before = [p.detach().clone() for p in net.second.parameters()]
    net.use = False
    for _ in range(3):
        optimizer.step(lambda: (net(inputs), targets))
    assert all(torch.equal(p, q) for p, q in zip(net.second.parameters(), before, strict=True))
    net.use = True
    held = net.first.weight.detach().clone()
    net.first.requires_grad_(False)
    for _ in range(3):
        optimizer.step(lambda: (net(inputs), targets))
    assert torch.equal(net.first.weight, held)
    assert not torch.equal(net.second.weight, before[0])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens))


def test_a_tied_parameter_gets_the_sum_over_its_uses() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Tied().double()
    tokens, targets = torch.arange(5).repeat(400), torch.tensor([1, 2, 3, 4, 0]).repeat(400)
    [truth] = torch.autograd.grad(LOSSES(net(tokens), targets).mean(), [net.embed.weight])
    optimizer = ActivityZO(net, LOSSES)
    draws = []
    for _ in range(20):
        optimizer.estimate(lambda: (net(tokens), targets), "node")
        assert net.embed.weight.grad is not None
        draws.append(net.embed.weight.grad)
    found = torch.stack(draws)
    assert ((found.mean(0) - truth).abs() < 5 * found.std(0) / 20**0.5).all()
    assert len(optimizer.param_groups[0]["params"]) == 1


def test_a_loss_that_is_not_finite_moves_nothing() -> None:
    net = made()
    optimizer = ActivityZO(net, LOSSES, 0.1)
    optimizer.step(on(net))
    before = [p.detach().clone() for p in net.parameters()]
    x = X[:16].clone()
    x[3, 2] = torch.nan
    assert np.isnan(optimizer.step(lambda: (net(x), Y[:16])))
    assert optimizer.spent.skipped == 1
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert optimizer.feedback is not None
    assert optimizer.feedback.gram.isfinite().all()


def test_wrong_losses_are_named() -> None:
    net = made()
    with pytest.raises(ConfigError, match="one number for each of the 16 examples"):
        ActivityZO(net, nn.CrossEntropyLoss()).step(on(net))
    with pytest.raises(ConfigError, match="differentiable in the module's outputs"):
        ActivityZO(net, lambda z, y: (z.argmax(1) == y).float()).step(on(net))
    with pytest.raises(ConfigError, match="inner=lion"):
        ActivityZO(net, LOSSES, inner="lion")


def loss_of_batch(batch: Callable[[], tuple[Tensor, Tensor]]) -> float:
    with torch.no_grad():
        return float(LOSSES(*batch()).mean())


def test_outputs_may_be_one_number_an_example() -> None:
    net = made()
    optimizer = ActivityZO(net, lambda z, y: (z - y).square(), 0.01, config=SHORT)
    wanted = X[:, 0] * X[:, 1]
    losses = [optimizer.step(lambda: (net(X)[:, 0], wanted)) for _ in range(80)]
    assert losses[-1] < 0.7 * losses[0]


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.inner(x)).mean(1))


def test_sequences_of_any_length_need_noise_that_is_shared() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Sequences()

    def batch(length: int) -> Callable[[], tuple[Tensor, Tensor]]:
        return lambda: (net(X[:16].unsqueeze(1).repeat(1, length, 1)), Y[:16])

    optimizer = ActivityZO(net, LOSSES, config=SHORT)
    for _ in range(12):
        optimizer.step(batch(3))
    assert optimizer.explained > 0
    with pytest.raises(ConfigError, match="share_tokens=True"):
        optimizer.step(batch(4))
    shared = ActivityZO(net, LOSSES, 0.01, share_tokens=True, config=SHORT)
    before = loss_of_batch(batch(2))
    for step in range(60):
        shared.step(batch(2 + step % 3))
    assert loss_of_batch(batch(2)) < before / 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_train(dtype: torch.dtype) -> None:
    net = made().to(dtype)
    rows = X.to(dtype)
    eps = 1e-4 if dtype == torch.float64 else 2**-4
    config = ActivityConfig(eps=eps, solve_every=8)
    optimizer = ActivityZO(net, LOSSES, 0.01, config=config)
    losses = [optimizer.step(lambda: (net(rows), Y)) for _ in range(60)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.dtype == dtype for p in net.parameters())


def test_inference_mode_of_the_closure_changes_nothing() -> None:
    def inferred(net: nn.Module, first: int) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            return on(net, first)()

    net, other = made(), made()
    plain, own = ActivityZO(net, LOSSES, config=SHORT), ActivityZO(other, LOSSES, config=SHORT)
    for step in range(20):
        assert plain.step(on(net, step)) == own.step(lambda: inferred(other, step))  # noqa: B023


class Positioned(nn.Module):
    """Places of tokens are looked up once for all examples, as encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place, self.head = nn.Embedding(9, 6), nn.Embedding(5, 6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        places = self.place(torch.arange(tokens.shape[1]))
        out: Tensor = self.head(torch.tanh(self.token(tokens) + places).mean(1))
        return out


def test_sites_without_a_row_for_each_example_are_named() -> None:
    net, tokens, classes = Positioned(), torch.arange(20).reshape(4, 5) % 9, torch.arange(4) % 3
    with pytest.raises(ConfigError, match=r"site 'place'=\(5, 6\) must be of one row for each"):
        ActivityZO(net, LOSSES).step(lambda: (net(tokens), classes))
    ActivityZO(net, LOSSES, sites=["token", "head"]).step(lambda: (net(tokens), classes))
    same = ActivityZO(net, LOSSES)  # five examples of five tokens: nobody can tell
    square, five = torch.arange(25).reshape(5, 5) % 9, torch.arange(5) % 3
    same.step(lambda: (net(square), five))
    with pytest.raises(ConfigError, match="site 'place'"):
        same.step(lambda: (net(tokens), classes))


@pytest.mark.parametrize(
    "told",
    [torch.tensor(1.0), (X[:2], Y[:2], 1), {"z": X}, (X[:0], Y[:0]), (torch.tensor(1.0), Y)],
    ids=["a loss", "three", "a dict", "no examples", "no rows"],
)
def test_closures_that_return_something_else_are_refused(told: Any) -> None:
    with pytest.raises(ConfigError, match="one that returns the module's outputs"):
        ActivityZO(made(), LOSSES).step(lambda: told)


def test_copies_and_groups_are_refused() -> None:
    net = made()
    optimizer = ActivityZO(net, LOSSES)
    for copied in (lambda: pickle.dumps(optimizer), lambda: copy.deepcopy((net, optimizer))):
        with pytest.raises(ConfigError, match="load its state_dict"):
            copied()
    with pytest.raises(ConfigError, match="inner=lambda"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})


def test_what_is_asked_to_be_unbiased_shares_no_noise_of_itself() -> None:
    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(6, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.unsqueeze(1) * torch.linspace(-1, 1, 80).unsqueeze(1)
            return self.head(torch.tanh(self.inner(rows)).mean(1))

    for feedback, shares in (("unbiased", False), ("auto", True)):
        net = Long()
        optimizer = ActivityZO(net, LOSSES, feedback=feedback)
        optimizer.step(on(net, size=4))
        assert optimizer.sites.share_tokens is shares


@pytest.mark.more
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_noise_suits_the_type_of_the_outputs(kind: torch.dtype) -> None:
    net = made()
    [want] = torch.autograd.grad(LOSSES(net(X[:8]), Y[:8]).mean(), [net[2].weight])
    net = net.to(kind)
    optimizer = ActivityZO(net, LOSSES, lr=0.0, feedback="off")
    total = torch.zeros_like(want)
    for _ in range(600):
        optimizer.estimate(lambda: (net(X[:8].to(kind)), Y[:8]), "node")
        total += net[2].weight.grad.float()
    assert float(functional.cosine_similarity(total.flatten(), want.flatten(), dim=0)) > 0.97
    fine = ActivityZO(net, LOSSES, config=ActivityConfig(eps=1e-4))
    with pytest.raises(ConfigError, match=r"eps=0\.0001 must be at least"):
        fine.step(lambda: (net(X[:8].to(kind)), Y[:8]))


def test_reparametrized_layers_are_refused() -> None:
    net = made()
    torch.nn.utils.parametrizations.weight_norm(net[2])
    with pytest.raises(ConfigError, match="site '2'=reparametrized"):
        ActivityZO(net, LOSSES)
    ActivityZO(net, LOSSES, sites=["0", "4"]).step(on(net))


class Changed(nn.Module):
    """Changes its head's outputs in place, so that they are no longer what the loss sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.first(inputs).tanh())
        return outputs.div_(4.0)


@pytest.mark.parametrize("inference", [False, True])
def test_outputs_that_are_changed_in_place_have_no_known_head(inference: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, inputs = Changed(), torch.randn(40, 5)
    labels = torch.arange(40) % 3

    wanted = torch.autograd.grad(LOSSES(net(inputs), labels).mean(), net.head.weight)[0]
    optimizer = ActivityZO(net, LOSSES, lr=0.0, inner="sgd", feedback="off")
    found = torch.zeros_like(wanted)

    def closure() -> tuple[Tensor, Tensor]:
        with torch.inference_mode(inference):
            return net(inputs), labels

    for _ in range(200):
        optimizer.estimate(closure, form="node")
        assert net.head.weight.grad is not None
        found += net.head.weight.grad / 200
    assert float((found - wanted).norm() / wanted.norm()) < 0.5, "it was 3"


class Repeated(nn.Module):
    """Calls a layer as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head, self.times, self.scale = nn.Linear(4, 4), nn.Linear(4, 2), 3, 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        for _ in range(self.times):
            inputs = self.cell(inputs).tanh()
        outputs: Tensor = self.head(inputs)
        return outputs * self.scale if self.scale else outputs


def test_layers_that_are_called_otherwise_than_at_first_are_named() -> None:
    net = Repeated()
    optimizer = ActivityZO(net, LOSSES, lr=0.1, feedback="off")
    batch = (torch.ones(8, 4), torch.zeros(8, dtype=torch.int64))
    optimizer.step(lambda: (net(batch[0]), batch[1]))
    before = [p.clone() for p in net.parameters()]
    net.times = 5
    with pytest.raises(ConfigError, match=r"\(6 calls\), and the first one cell, .* \(4 calls\)"):
        optimizer.step(lambda: (net(batch[0]), batch[1]))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_layers_may_be_called_otherwise_where_no_head_is_known() -> None:
    net = Repeated()
    net.scale = 2.0
    optimizer = ActivityZO(net, LOSSES, lr=0.1, feedback="off")
    batch = (torch.ones(8, 4), torch.zeros(8, dtype=torch.int64))
    for net.times in (3, 5, 2):
        optimizer.step(lambda: (net(batch[0]), batch[1]))
    assert all(p.isfinite().all() for p in net.parameters())


def test_an_embedding_in_low_precision_gets_a_gradient_in_it() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 2)).to(torch.bfloat16)
    before = net[0].weight.detach().clone()
    optimizer = ActivityZO(net, nn.CrossEntropyLoss(reduction="none"), feedback="off", lr=0.1)
    tokens, targets = torch.randint(7, (16, 2)), torch.randint(2, (16,))
    optimizer.step(lambda: (net(tokens), targets))
    assert net[0].weight.grad is not None
    assert net[0].weight.grad.dtype == torch.bfloat16
    assert not torch.equal(net[0].weight, before)


def test_parameters_that_no_site_has_are_named() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    losses = nn.CrossEntropyLoss(reduction="none")
    with pytest.warns(FedzoWarning, match=r"1\.weight, 1\.bias stay as they are"):
        ActivityZO(net, losses)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net[1].requires_grad_(False)
        ActivityZO(net, losses)
