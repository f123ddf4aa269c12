"""Ackley and Levy, shifted: known values, and that clients differ around a common mean."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.errors import ConfigError
from scenarios.problems.multimodal import MultimodalConfig, MultimodalScenario, ackley, levy


def test_known_values() -> None:
    zero, one = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    assert float(ackley(zero)) == pytest.approx(0, abs=1e-12)
    assert float(ackley(one)) == pytest.approx(20 - 20 * math.exp(-0.2), rel=1e-12)
    assert float(levy(one)) == pytest.approx(0, abs=1e-12)
    w = 0.75  # z = 0: three inner terms, the first and the last
    inner = 3 * (w - 1) ** 2 * (1 + 10 * math.sin(math.pi * w + 1) ** 2)
    ends = math.sin(math.pi * w) ** 2 + (w - 1) ** 2 * (1 + math.sin(2 * math.pi * w) ** 2)
    assert float(levy(zero)) == pytest.approx((inner + ends) / 4, rel=1e-12)


@given(st.sampled_from(["ackley", "levy"]), st.integers(1, 6), st.integers(0, 50))
def test_f_is_the_mean_of_the_clients_and_nowhere_negative(
    function: str, clients: int, seed: int
) -> None:
    config = MultimodalConfig(function=function, dim=7, heterogeneity=2.0)  # type: ignore[arg-type]
    world = MultimodalScenario(config, num_clients=clients, seed=seed)
    x = torch.linspace(0, 1, 7, dtype=torch.float64)
    values = world.cohort(range(clients), 0).value(x.expand(clients, 1, 7))
    value = world.problem(0).report(x, None).value
    assert value == pytest.approx(float(values.mean()), rel=1e-12)
    assert float(values.min()) >= 0


def test_shifts_cancel_over_clients_and_grow_with_heterogeneity() -> None:
    def shifts(heterogeneity: float) -> torch.Tensor:
        config = MultimodalConfig(dim=9, heterogeneity=heterogeneity)
        world = MultimodalScenario(config, num_clients=5, seed=1)
        return world.cohort(range(5), 0).coefficients[0]  # type: ignore[attr-defined, no-any-return]

    assert float(shifts(3.0).sum(0).abs().max()) < 1e-12
    torch.testing.assert_close(shifts(3.0), 3 * shifts(1.0))
    assert not shifts(0.0).any()


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dim=1 must be at least 2"):
        MultimodalConfig(dim=1)
