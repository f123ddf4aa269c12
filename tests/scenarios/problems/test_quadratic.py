"""The quadratic scenario against its own formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedzo.errors import ConfigError
from fedzo.objectives.cohort import cohort_gradient
from scenarios.problems.quadratic import QuadraticConfig, QuadraticScenario


def scenario(heterogeneity: float = 5.0, seed: int = 0, clients: int = 5, dim: int = 30):  # type: ignore[no-untyped-def]
    config = QuadraticConfig(dim=dim, heterogeneity=heterogeneity)
    return QuadraticScenario(config, num_clients=clients, seed=seed)


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 50), st.integers(1, 8), st.integers(0, 99))
def test_the_mean_of_the_clients_is_f_for_every_heterogeneity(
    heterogeneity: float, clients: int, seed: int
) -> None:
    world = scenario(heterogeneity, seed, clients)
    x = torch.linspace(0, 1, 30, dtype=torch.float64).sin()
    values = world.cohort(range(clients), 0).value(x.expand(clients, 1, 30))
    report = world.problem(0).report(x, None)
    assert float(values.mean()) == pytest.approx(report.value, rel=1e-9, abs=1e-9)


def test_f_by_hand() -> None:
    """At x = 1/2, z = 0 and F = 1 / (10 d); at x = 1, z = 10 and F = (110 d + 1) / (10 d)."""
    problem = scenario().problem(0)
    assert problem.report(torch.full((30,), 0.5).double(), None).value == pytest.approx(1 / 300)
    assert problem.report(torch.ones(30).double(), None).value == pytest.approx(3301 / 300)


def test_the_optimum_is_where_the_gradient_vanishes() -> None:
    world = scenario()
    best = torch.full((30,), (10 - 0.5) / 20, dtype=torch.float64)
    report = world.problem(0).report(best, None)
    assert report.metrics["gap"] == pytest.approx(0, abs=1e-15)
    gradient = cohort_gradient(world.cohort(range(5), 0), best.expand(5, 30)).mean(0)
    assert float(gradient.abs().max()) < 1e-12


def test_heterogeneity_is_a_dial() -> None:
    def spread(c: float) -> float:
        values = scenario(c).cohort(range(5), 0).value(torch.ones(5, 1, 30, dtype=torch.float64))
        return float(values.std())

    assert spread(0.0) == 0
    assert spread(50.0) == pytest.approx(10 * spread(5.0))


def test_a_part_of_the_cohort_is_its_rows() -> None:
    world = scenario()
    x = torch.rand(5, 2, 30, dtype=torch.float64)
    whole = world.cohort(range(5), 0).value(x)
    assert torch.equal(world.cohort([1, 4], 0).value(x[[1, 4]]), whole[[1, 4]])


def test_the_seed_determines_the_world() -> None:
    one, same, other = scenario(seed=0), scenario(seed=0), scenario(seed=1)
    starts = [w.problem(0).initial_x for w in (one, same, other)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert (starts[0] >= 0).all()
    assert (starts[0] <= 1).all()


@pytest.mark.parametrize("bad", [{"dim": 0}, {"heterogeneity": -1.0}, {"noise_std": -0.1}])
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        QuadraticConfig(**bad)  # type: ignore[arg-type]


def test_the_condition_spreads_curvatures_and_keeps_the_optimum() -> None:
    config = QuadraticConfig(dim=400, heterogeneity=5.0, condition=100.0)
    world = QuadraticScenario(config, num_clients=3, seed=2)
    problem = world.problem(0)
    square, _ = world.cohort(range(3), 0).coefficients  # type: ignore[attr-defined]
    ratio = float(square.mean(0).max() / square.mean(0).min())
    assert 80 < ratio <= 100
    best = torch.full((400,), (10 - 0.5) / 20, dtype=torch.float64)
    assert problem.report(best, None).value == pytest.approx(-1 / 40 + 1 / 4000)
    x = torch.linspace(0, 1, 400, dtype=torch.float64)
    values = world.cohort(range(3), 0).value(x.expand(3, 1, 400))
    assert float(values.mean()) == pytest.approx(problem.report(x, None).value)
    with pytest.raises(ConfigError, match=r"condition=0\.5 must be at least 1"):
        QuadraticConfig(condition=0.5)
