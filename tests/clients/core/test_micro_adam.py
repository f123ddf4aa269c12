"""MicroAdam: Adam where nothing is left out, nothing lost but rounding, and it converges."""

import pytest
import torch
from torch import Tensor

from clients.core.local_optimizers import make_local_optimizer
from clients.core.micro_adam import MicroAdam, MicroAdamState
from fedzo.compression.integer import Integer
from fedzo.errors import ConfigError
from fedzo.optimizers import Adam

GRADIENTS = torch.linspace(-2, 3, 130 * 14, dtype=torch.float64).reshape(14, 2, 65).sin()


def test_with_all_numbers_it_is_adam_as_long_as_it_remembers_all_steps() -> None:
    ours, adam = MicroAdam(density=1.0, window=10), Adam()
    x = y = torch.ones(2, 65, dtype=torch.float64)
    state, moments = ours.init(x), adam.init(y)
    for number, gradient in enumerate(GRADIENTS):
        state, x = ours.step(state, x, gradient, 0.01)
        moments, y = adam.step(moments, y, gradient, 0.01)
        if number < 10:
            assert torch.allclose(x, y, atol=1e-14)
    assert (x - y).abs().max() > 1e-4


def residual(state: MicroAdamState, dim: int) -> Tensor:
    return Integer(4, "nearest", 64).decode(state.residual, dim).double()


def test_what_is_not_used_stays_but_for_its_rounding() -> None:
    ours = MicroAdam(density=0.1)
    x = torch.zeros(2, 65, dtype=torch.float64)
    state = ours.init(x)
    for gradient in GRADIENTS:
        owed = residual(state, 65)
        state, x = ours.step(state, x, gradient, 0.01)
        used = torch.zeros(2, 65, dtype=torch.float64)
        used.scatter_(1, state.places[-1], state.numbers[-1])
        left = owed + gradient - used
        assert state.places.shape == (min(10, state.count), 2, 7)
        assert used.count_nonzero(dim=1).tolist() == [7, 7]
        assert left[used != 0].abs().max() == 0
        assert left.square().sum() <= (1 - 7 / 65) * (owed + gradient).square().sum()
        error = (residual(state, 65) - left).abs()
        for block in (slice(0, 64), slice(64, 65)):
            step = left[:, block].abs().amax(1) / 7
            assert (error[:, block].amax(1) <= step / 2 + 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize(("density", "reached"), [(0.5, 0.12), (1.0, 0.002)])
def test_with_one_of_two_numbers_it_comes_down_the_valley(density: float, reached: float) -> None:
    """Rosenbrock from (-1/2, 1), as in the paper's figure 1."""
    ours = MicroAdam(density=density)
    x = torch.tensor([-0.5, 1.0], dtype=torch.float64)
    state = ours.init(x)
    for _ in range(6000):
        point = x.clone().requires_grad_(True)
        value = (1 - point[0]) ** 2 + 100 * (point[1] - point[0] ** 2) ** 2
        (gradient,) = torch.autograd.grad(value, point)
        state, x = ours.step(state, x, gradient, 3e-4)
    assert (x - 1).abs().max() < reached


def test_a_cohort_is_its_clients() -> None:
    ours, x = MicroAdam(density=0.2), torch.zeros(2, 65, dtype=torch.float64)
    together, moved = ours.step(ours.init(x), x, GRADIENTS[0], 0.1)
    _, moved = ours.step(together, moved, GRADIENTS[1], 0.1)
    for i in range(2):
        state, alone = ours.step(ours.init(x[i]), x[i], GRADIENTS[0, i], 0.1)
        _, alone = ours.step(state, alone, GRADIENTS[1, i], 0.1)
        assert torch.equal(moved[i], alone)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"density": 0.0}, {"density": 1.1}, {"window": 0}, {"beta1": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            MicroAdam(**wrong)  # type: ignore[arg-type]
    assert make_local_optimizer("microadam", momentum=0.5) == MicroAdam(beta1=0.5)
