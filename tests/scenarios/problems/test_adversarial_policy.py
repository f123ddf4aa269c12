"""The scenario adversarial_policy: what clients are asked, what is reported, and that it works."""

import pickle
from pathlib import Path

import pytest
import torch

from fedzo.errors import ConfigError
from scenarios import make_experiment, simulate
from scenarios.problems.adversarial_policy import (
    AdversarialPolicyConfig,
    AdversarialPolicyScenario,
)


def world(seed: int = 0, **settings: float) -> AdversarialPolicyScenario:
    config = AdversarialPolicyConfig(**settings)  # type: ignore[arg-type]
    return AdversarialPolicyScenario(config, num_clients=3, seed=seed)


def somewhere(scenario: AdversarialPolicyScenario, seed: int = 0) -> torch.Tensor:
    dim = len(scenario.problem(0).initial_x)
    return torch.rand(dim, generator=torch.Generator().manual_seed(seed))


def test_f_is_the_mean_of_the_victims_values_and_above_the_bound() -> None:
    scenario = world()
    x = somewhere(scenario)
    values = scenario.cohort(range(3), 0).value(x.expand(3, 1, -1))
    report = scenario.problem(0).report(x, None)
    assert report.value == pytest.approx(float(values.mean()), abs=1e-12)
    goals = report.metrics["victim_goals"] - report.metrics["agent_goals"]
    assert report.value == pytest.approx(goals)
    assert report.metrics["bound"] < report.value
    assert 0 < report.metrics["shift"] < 1


@pytest.mark.more
def test_a_smaller_share_is_less_and_at_none_the_agent_is_itself() -> None:
    reports = []
    for share in (1.0, 0.5, 1e-9):
        scenario = world(share=share)
        reports.append(scenario.problem(0).report(somewhere(scenario), None))
    shifts = [report.metrics["shift"] for report in reports]
    bounds = [report.metrics["bound"] for report in reports]
    assert shifts[0] > shifts[1] > shifts[2]
    assert bounds[0] < bounds[1] < bounds[2]
    scenario = world(share=1e-9)
    own = scenario.game.value(scenario.agent.own, scenario.victims).mean()
    assert reports[2].value == pytest.approx(float(own), abs=1e-6)
    assert shifts[2] == pytest.approx(0, abs=1e-6)


@pytest.mark.more
def test_games_are_played_with_the_same_dice_and_tell_about_the_value() -> None:
    exact, played = world(), world(games=1000)
    x = somewhere(exact).expand(3, 2, -1)
    told = played.cohort(range(3), 0).value(x)
    assert torch.equal(told, played.cohort(range(3), 0).value(x))
    assert torch.equal(told, pickle.loads(pickle.dumps(played)).cohort(range(3), 0).value(x))
    assert float((told - exact.cohort(range(3), 0).value(x)).abs().max()) < 5 / 1000**0.5
    assert not torch.equal(told, world(seed=1, games=1000).cohort(range(3), 0).value(x))


@pytest.mark.more
@pytest.mark.parametrize(
    "strategy",
    ["seedzo", *(pytest.param(s, marks=pytest.mark.slow) for s in ("fzoos", "thompson"))],
)
def test_strategies_beat_the_victims(strategy: str, tmp_path: Path) -> None:
    experiment = make_experiment(
        "adversarial_policy", strategy, num_clients=2, num_rounds=200, query_budget=600
    )
    result = simulate(experiment, out=tmp_path)
    first, last = result.records[0].value, result.last_records[0].value
    assert first is not None
    assert last is not None
    assert first > 0.2
    assert last < 0.5 * first


@pytest.mark.more
def test_it_draws_where_the_agent_is(tmp_path: Path) -> None:
    scenario = world()
    experiment = make_experiment("adversarial_policy", "fzoos", num_clients=3, num_rounds=2)
    result = simulate(experiment)
    scenario.draw(tmp_path / "figure.png", result.solutions, result.records)
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_bad_settings_are_refused() -> None:
    for wrong in ({"share": 0.0}, {"rounds_of_play": 0}, {"games": -1}, {"radius": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            AdversarialPolicyConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="height"):
        AdversarialPolicyConfig(height=9)
