"""`fedzo audit`: honest mechanisms stay below their claim, halved noise is caught."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from fedzo.privacy.accountant import noise_for
from scenarios.cli.app import app
from scenarios.runs.audit import audit

MORE = {
    "diff2_zo": {"client.num_directions": 3},
    "dp_fedavg": {"strategy.local_steps": 2},
}
SLOPES: dict[str, Scalar] = {"strategy.unit": "record", "client.num_directions": 3}


@pytest.mark.parametrize(
    "strategy",
    ["diff2_zo", "dp_fedavg", "dp_seed_scalar", pytest.param("diff2", marks=pytest.mark.slow)],
)
def test_honest_noise_is_not_refuted(strategy: str) -> None:
    found = audit(strategy, trials=40, num_rounds=1, settings=MORE.get(strategy))
    assert not found.result.refuted
    assert found.result.claim == 4.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("diff2", {}),
        ("dp_gd", {}),
        ("diff2_zo", {}),
        ("dp_seed_scalar", {}),
        ("dp_seed_scalar", {"strategy.local_steps": 2}),
        ("dp_seed_scalar", SLOPES),
    ],
)
def test_the_attacker_sees_each_release_once_and_the_whole_sensitivity(
    strategy: str, more: dict[str, Scalar]
) -> None:
    """Of N(-mu^2/2, mu^2) and N(mu^2/2, mu^2), the means need the sensitivity, the spread noise."""
    settings = {**MORE.get(strategy, {}), "strategy.epsilon": 8.0, **more}
    found = audit(strategy, trials=60, num_rounds=4, settings=settings)
    mu = 1 / noise_for(8.0, 1e-5)
    spread = np.sqrt((found.without.var(ddof=1) + found.with_canary.var(ddof=1)) / 2)
    assert abs(spread / mu - 1) < 5 / (2 * 118) ** 0.5
    apart = found.with_canary.mean() - found.without.mean()
    assert abs(apart - mu * mu) < 5 * mu * (2 / 60) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["diff2", "diff2_zo", "dp_seed_scalar"])
def test_a_tenth_of_the_noise_is_caught(strategy: str) -> None:
    settings = MORE.get(strategy)
    found = audit(strategy, trials=80, num_rounds=2, noise_factor=0.1, settings=settings)
    assert found.result.refuted
    assert found.result.epsilon_low > 4.0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["diff2", "dp_gd", "diff2_zo"])
def test_halved_noise_is_caught_and_the_honest_bound_is_close(strategy: str) -> None:
    honest = audit(strategy, trials=800)
    assert 1.0 < honest.result.epsilon_low < 4.0
    broken = audit(strategy, trials=800, noise_factor=0.5)
    assert broken.result.refuted


def test_the_command_says_it_and_draws(tmp_path: Path) -> None:
    call = ["audit", "dp_gd", "--trials", "50", "--rounds", "1", "--noise-factor", "0.1"]
    done = CliRunner().invoke(app, [*call, "--json", "--out", str(tmp_path / "a" / "roc.png")])
    assert done.exit_code == 1, "a refuted claim"
    summary = json.loads(done.stdout)
    assert summary["refuted"]
    assert summary["epsilon_low"] > summary["claim"] == 4.0
    assert (tmp_path / "a" / "roc.png").stat().st_size > 5000
    fine = CliRunner().invoke(app, ["audit", "dp_gd", "--trials", "40", "--rounds", "1"])
    assert fine.exit_code == 0
    assert "epsilon >=" in fine.stdout


@pytest.mark.parametrize(
    ("strategy", "settings", "match"),
    [
        ("fedavg", {}, "claims no epsilon; audit"),
        ("nobody", {}, "unknown strategy 'nobody'"),
        ("diff2", {"strategy.memory": "filter"}, r"strategy\.memory=filter cannot be audited"),
        ("diff2", {"strategy.epsilon": float("inf")}, "claims nothing; give a number"),
    ],
)
def test_what_cannot_be_audited_is_refused(strategy: str, settings: dict, match: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=match):
        audit(strategy, trials=40, settings=settings)
