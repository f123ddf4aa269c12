"""Private FedAvg and FedZO: limits, noise, sampling, budget."""

import math
from typing import Any

import pytest
import torch

from fedzo.errors import ConfigError
from fedzo.privacy.accountant import Ledger, Sampling, noise_for
from fedzo.randomness import stream
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import RunResult, simulate
from strategies.private.private_fedavg import PrivateFedAvgConfig


def go(strategy: str, rounds: int = 4, clients: int = 6, **settings: Any) -> RunResult:
    dotted = {f"strategy.{name}": value for name, value in settings.items()}
    made = make_experiment(
        "quadratic", strategy, num_rounds=rounds, num_clients=clients, seed=2,
        settings={"scenario.dim": 8, **dotted},
    )  # fmt: skip
    return simulate(made)


@pytest.mark.parametrize(("private", "plain"), [("dp_fedavg", "fedavg"), ("dp_fedzo", "fedzo")])
def test_without_noise_and_clipping_it_is_fedavg(private: str, plain: str) -> None:
    free = {"epsilon": math.inf, "clip_norm": 1e9}
    one, other = go(private, local_steps=3, **free), go(plain, local_steps=3)
    torch.testing.assert_close(one.x, other.x)
    assert one.queries == other.queries
    assert one.summary()["epsilon"] is None


def test_one_round_by_hand() -> None:
    clipped = go("dp_fedavg", rounds=1, epsilon=math.inf, clip_norm=0.1)
    noisy = go("dp_fedavg", rounds=1, epsilon=5.0, clip_norm=0.1)
    std = noise_for(5.0, 1e-5) * 2 * 0.1 / 6
    noise = stream(2, "privacy", "release", 0, 1).standard_normal(8)
    torch.testing.assert_close(noisy.x, clipped.x + (std * torch.from_numpy(noise)).to(noisy.x))
    assert noisy.records[-1].noise_std == pytest.approx(std)
    assert noisy.records[-1].shortened == 1.0
    start = go("dp_fedavg", rounds=0).x
    assert float((clipped.x - start).norm()) <= 0.1


def test_epsilon_is_that_of_the_releases() -> None:
    result = go("dp_fedavg", rounds=5)
    z = noise_for(3.0, 1e-5) * math.sqrt(5)
    assert result.records[2].epsilon == Ledger.empty().after(z, 2).epsilon(1e-5)
    assert result.summary()["epsilon"] == pytest.approx(3.0)


@pytest.mark.usefixtures("few_orders")
def test_a_sample_counts_only_where_it_is_secret() -> None:
    known = go("dp_fedavg", clients=20, participation=0.2, clip_norm=1.0)
    assert known.records[-1].noise_std == pytest.approx(noise_for(3.0, 1e-5) * 2 * 2 / 4)
    secret = go("dp_fedavg", clients=20, participation=0.2, secret_sample=True, clip_norm=1.0)
    z = secret.records[-1].noise_std * 4 / 2  # type: ignore[operator]
    sampled = Ledger.empty().after(z, 4, Sampling(drawn=4, population=20))
    assert secret.summary()["epsilon"] == pytest.approx(sampled.epsilon(1e-5), rel=1e-3)
    assert secret.summary()["epsilon"] <= 3.0
    assert z < noise_for(3.0, 1e-5) * 2
    with pytest.raises(ConfigError, match=r"set strategy\.adjacency=replace_one"):
        go("dp_fedavg", clients=20, participation=0.2, secret_sample=True, adjacency="zero_out")


@pytest.mark.more
@pytest.mark.parametrize("participation", [0.75, 0.95])
def test_a_large_secret_sample_costs_no_more_than_one_that_is_known(participation: float) -> None:
    usual = {"clients": 20, "participation": participation, "clip_norm": 1.0}
    known, secret = (go("dp_fedavg", secret_sample=s, **usual) for s in (False, True))
    assert secret.records[-1].noise_std == known.records[-1].noise_std
    assert secret.summary()["epsilon"] == known.summary()["epsilon"] <= 3.0
    by_hand = {**usual, "noise_multiplier": 3.0, "epsilon": math.inf}
    known, secret = (go("dp_fedavg", secret_sample=s, **by_hand) for s in (False, True))
    assert secret.summary()["epsilon"] == known.summary()["epsilon"]


def test_a_run_ends_before_it_exceeds_the_budget() -> None:
    result = go("dp_fedzo", rounds=9, noise_multiplier=noise_for(3.0, 1e-5) * 2)
    assert result.stops == ["privacy"]
    assert result.records[-1].round_index == 4
    longer = go("dp_fedzo", rounds=4, noise_multiplier=noise_for(3.0, 1e-5) * 2)
    assert result.queries == longer.queries, "nothing was asked in the round that was not run"


def test_forms_that_it_has_not_are_refused() -> None:
    for setting in ({"unit": "record"}, {"noise": "clients"}):
        with pytest.raises(ConfigError, match="must be client and server here"):
            PrivateFedAvgConfig(**setting)  # type: ignore[arg-type]
