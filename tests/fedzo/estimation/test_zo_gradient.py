"""zo_gradient: equal to autograd on differentiable stand-ins, and counted."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedzo.estimation.zo_gradient import ZoGradientConfig, value_and_estimate, zo_gradient
from fedzo.randomness import stream


def smooth(points: Tensor) -> Tensor:
    """A smooth function of rows of any leading shape."""
    weights = torch.linspace(-1, 1, points.shape[-1], dtype=points.dtype)
    return (points @ weights).sin() + 0.5 * (points.square() * weights.abs()).sum(-1)


def chained(config: ZoGradientConfig | None) -> Tensor:
    """Return the gradient of a linear layer below the function, by estimates or by autograd."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(6, 5).double()
    for p in layer.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    h = layer(torch.randn(4, 6, generator=generator, dtype=torch.float64))
    if config is None:
        losses = smooth(h)
    else:
        losses = zo_gradient(smooth, h, config, generator=stream(0, "zo"))
    (losses * torch.tensor([1.0, 2.0, 0.0, -1.0])).sum().backward()
    assert layer.weight.grad is not None
    return layer.weight.grad


def test_coordinate_wise_estimates_equal_autograd_to_1e_4() -> None:
    estimated = chained(ZoGradientConfig(estimator="coordinate", mu=1e-3))
    torch.testing.assert_close(estimated, chained(None), atol=1e-4, rtol=0)
    assert not torch.allclose(estimated, torch.zeros_like(estimated))


@pytest.mark.parametrize("estimator", ["forward", "central"])
def test_random_directions_are_unbiased(estimator: str) -> None:
    h = torch.linspace(-1, 1, 5, dtype=torch.float64).expand(2000, 5)
    config = ZoGradientConfig(estimator=estimator, num_directions=2, mu=1e-5)  # type: ignore[arg-type]
    _, drawn = value_and_estimate(smooth, h, config, generator=stream(1, "zo"))
    exact = torch.func.grad(smooth)(h[0])
    error = drawn.std(0) / len(h) ** 0.5
    assert bool(((drawn.mean(0) - exact).abs() < 5 * error + 1e-3).all())


@pytest.mark.parametrize("estimator", ["forward", "central", "coordinate"])
def test_what_is_asked_is_what_is_said(estimator: str) -> None:
    asked = []

    def counted(points: Tensor) -> Tensor:
        asked.append(points.shape[:2])
        return smooth(points)

    config = ZoGradientConfig(estimator=estimator, num_directions=3)  # type: ignore[arg-type]
    h = torch.zeros(7, 4)
    values, _ = value_and_estimate(counted, h, config, generator=stream(0, "zo"))
    assert asked == [(7, config.num_queries(4))]
    torch.testing.assert_close(values, smooth(h))


def test_the_value_passes_through_and_the_seed_decides() -> None:
    h = torch.ones(3, 4)
    config = ZoGradientConfig(estimator="forward")
    one, same, other = (
        value_and_estimate(smooth, h, config, generator=stream(seed, "zo"))[1] for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert np.isfinite(one.numpy()).all()
