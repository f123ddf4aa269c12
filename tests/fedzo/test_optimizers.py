"""SGD and Adam against torch.optim."""

import pytest
import torch

from fedzo.errors import ConfigError
from fedzo.optimizers import SGD, AdaGrad, Adam, DiffGrad, Lion, make_optimizer

GRADIENTS = torch.linspace(-2, 3, 60, dtype=torch.float64).reshape(6, 2, 5).sin()


def ours(optimizer, lr: float) -> torch.Tensor:  # type: ignore[no-untyped-def]
    x = torch.ones(2, 5, dtype=torch.float64)
    state = optimizer.init(x)
    for gradient in GRADIENTS:
        state, x = optimizer.step(state, x, gradient, lr)
    assert state.count == len(GRADIENTS)
    return x


def theirs(make, **options: object) -> torch.Tensor:  # type: ignore[no-untyped-def]
    x = torch.ones(2, 5, dtype=torch.float64, requires_grad=True)
    optimizer = make([x], **options)
    for gradient in GRADIENTS:
        x.grad = gradient.clone()
        optimizer.step()
    return x.detach()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_torchs(momentum: float) -> None:
    reference = theirs(torch.optim.SGD, lr=0.1, momentum=momentum)
    assert torch.allclose(ours(SGD(momentum=momentum), 0.1), reference, atol=1e-14)


def test_adam_is_torchs() -> None:
    reference = theirs(torch.optim.Adam, lr=0.1)
    assert torch.allclose(ours(Adam(), 0.1), reference, atol=1e-12)


def test_adagrad_is_torchs() -> None:
    reference = theirs(torch.optim.Adagrad, lr=0.1)
    assert torch.allclose(ours(AdaGrad(), 0.1), reference, atol=1e-12)


def test_adagrad_norm_by_hand() -> None:
    """x_2 = x_0 - lr (g_1 / |g_1| + g_2 / sqrt(|g_1|^2 + |g_2|^2))."""
    g, h = torch.tensor([3.0, 4.0]).double(), torch.tensor([0.0, 12.0]).double()
    optimizer, x = AdaGrad(norm=True), torch.zeros(2, dtype=torch.float64)
    state, x = optimizer.step(optimizer.init(x), x, g, 0.1)
    _, x = optimizer.step(state, x, h, 0.1)
    assert torch.allclose(x, -0.1 * (g / 5 + h / 13))


def test_first_adam_step_is_the_sign() -> None:
    """By hand: m/(1-b1) / sqrt(v/(1-b2)) = g / |g|."""
    x = torch.zeros(3, dtype=torch.float64)
    g = torch.tensor([2.0, -0.5, 1e-3], dtype=torch.float64)
    _, moved = Adam().step(Adam().init(x), x, g, 0.01)
    assert torch.allclose(moved, -0.01 * g.sign(), atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [SGD(), SGD(momentum=0.5), Adam(), Lion(), DiffGrad(), AdaGrad(), AdaGrad(norm=True)],
)
def test_a_cohort_is_its_clients(optimizer) -> None:  # type: ignore[no-untyped-def]
    rows = torch.stack([GRADIENTS[0, 0], GRADIENTS[1, 0]])
    x = torch.zeros_like(rows)
    _, together = optimizer.step(optimizer.init(x), x, rows, 0.1)
    for i in range(2):
        _, alone = optimizer.step(optimizer.init(x[i]), x[i], rows[i], 0.1)
        assert torch.equal(together[i], alone)


def test_lion_by_hand() -> None:
    x = torch.zeros(3, dtype=torch.float64)
    g = torch.tensor([2.0, -0.5, 0.0], dtype=torch.float64)
    state, moved = Lion().step(Lion().init(x), x, g, 0.01)
    assert moved.tolist() == [-0.01, 0.01, 0.0]
    assert torch.allclose(state.first, 0.01 * g)
    state, again = Lion().step(state, moved, -0.01 * g, 0.01)
    assert torch.allclose(again, moved - 0.01 * (0.9 * 0.01 * g - 0.1 * 0.01 * g).sign())
    assert torch.allclose(state.first, 0.99 * 0.01 * g - 0.01 * 0.01 * g)


def test_diffgrad_is_adam_with_friction() -> None:
    """xi = 1/(1 + exp(-|g_(t-1) - g_t|)): 1/2 where the gradient has stood still."""
    x = torch.zeros(2, dtype=torch.float64)
    g = torch.tensor([3.0, -0.2], dtype=torch.float64)
    ours, adam = DiffGrad().init(x), Adam().init(x)
    ours, first = DiffGrad().step(ours, x, g, 0.1)
    adam, reference = Adam().step(adam, x, g, 0.1)
    assert torch.allclose(first, reference * torch.sigmoid(g.abs()))
    ours, second = DiffGrad().step(ours, first, g, 0.1)
    adam, further = Adam().step(adam, reference, g, 0.1)
    assert torch.allclose(second - first, (further - reference) / 2)


def test_state_is_replaced_not_changed() -> None:
    x = torch.zeros(2)
    state = Adam().init(x)
    Adam().step(state, x, torch.ones(2), 0.1)
    assert torch.equal(state.first, torch.zeros(2))
    assert torch.equal(x, torch.zeros(2))


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 2.0])
def test_momentum_out_of_range_is_refused(momentum: float) -> None:
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        make_optimizer("sgd", momentum=momentum)


def test_momentum_is_adams_beta1() -> None:
    assert make_optimizer("adam", momentum=0.5) == Adam(beta1=0.5)
    assert make_optimizer("adam") == Adam(beta1=0.9)
