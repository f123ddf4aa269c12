"""Clients' rates that fall: what each round asks, in every strategy whose clients take steps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedzo.errors import ConfigError
from fedzo.protocol.exchange import Exchange
from fedzo.runtime.inprocess import InProcessEngine
from scenarios import federate
from scenarios.runs.experiment import Experiment, effects_of, make_experiment
from scenarios.runs.methods import STRATEGIES
from scenarios.runs.simulate import simulate
from strategies.core.step_config import FallingConfig

FALLING = sorted(
    name
    for name in STRATEGIES
    if "strategy.lr_period" in effects_of("quadratic", name, "inprocess", {}).settings
)
SMALL: dict[str, Any] = {"scenario.dim": 4, "strategy.local_lr": 0.8, "strategy.lr_period": 1}


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("inverse", [0.6, 0.6, 0.3, 0.3, 0.2]),
        ("sqrt", [0.6, 0.6, 0.6 / 2**0.5, 0.6 / 2**0.5, 0.6 / 3**0.5]),
        ("halving", [0.6, 0.6, 0.3, 0.3, 0.15]),
    ],
)
def test_the_rate_of_a_round(decay: Any, expected: list[float]) -> None:
    config = FallingConfig(local_steps=3, local_lr=0.6, lr_period=2, lr_decay=decay)
    told = [config.told(round_index) for round_index in range(1, 6)]
    assert [each["local_lr"] for each in told] == pytest.approx(expected)
    assert {each["local_steps"] for each in told} == {3}


def test_without_a_period_it_stays() -> None:
    assert FallingConfig(local_lr=0.5).told(1000)["local_lr"] == 0.5
    with pytest.raises(ConfigError, match=r"lr_period=-1 must be 0 \(constant\) or more"):
        FallingConfig(lr_period=-1)


@pytest.mark.parametrize("strategy", FALLING)
def test_every_strategy_asks_with_the_rate_of_the_round(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[int, set[float]] = {}
    perform = InProcessEngine.perform

    def seen(engine: InProcessEngine, exchanges: Any, **how: Any) -> Any:
        for exchange in exchanges:
            note(exchange)
        return perform(engine, exchanges, **how)

    def note(exchange: Exchange) -> None:
        if hasattr(exchange.question, "local_lr"):
            rates = asked.setdefault(exchange.moment.round_index, set())
            rates.add(exchange.question.local_lr)

    monkeypatch.setattr(InProcessEngine, "perform", seen)
    own = {"strategy.variant": "on_client"} if strategy == "fzoos" else {}
    more = {"strategy.local_steps": 2}
    experiment = make_experiment(
        "quadratic",
        strategy,
        num_rounds=4,
        num_clients=3,
        settings={**SMALL, **own, **more, "strategy.lr_decay": "halving"},
    )
    simulate(experiment)
    asked.pop(0, None)
    assert asked
    assert all(rates == {0.8 * 0.5 ** (r - 1)} for r, rates in asked.items()), asked


def test_a_falling_rate_takes_noise_away() -> None:
    """Where constant steps of noisy estimates end at a distance, falling ones come closer."""

    def gap(**how: Any) -> float:
        settings = {"scenario.dim": 20, "scenario.noise_std": 0.01, "client.num_directions": 4}
        experiment = make_experiment(
            "quadratic",
            "fedzo",
            num_rounds=120,
            num_clients=4,
            settings={**settings, "strategy.local_lr": 0.03, **how},
        )
        return simulate(experiment).metrics["gap"]

    falling = gap(**{"strategy.lr_period": 20})
    assert falling < 0.5 * gap()


def test_it_needs_steps_and_a_period() -> None:
    with pytest.raises(ConfigError, match="lr_decay"):
        federate(
            lambda client: None,  # type: ignore[arg-type, return-value]
            num_clients=2,
            settings={"strategy.lr_decay": "sqrt"},
        )


def test_a_run_with_a_falling_rate_is_made_longer_to_the_same_bits(tmp_path: Path) -> None:
    def made(rounds: int) -> Experiment:
        settings = {**SMALL, "strategy.lr_period": 2}
        return make_experiment(
            "quadratic", "fedzo", num_rounds=rounds, num_clients=3, settings=settings
        )

    simulate(made(3), out=tmp_path)
    longer = simulate(made(7), out=tmp_path, resume=True)
    assert torch.equal(longer.x, simulate(made(7)).x)
