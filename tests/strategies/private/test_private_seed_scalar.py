"""Private slopes in place: the noise, the budget, and what is as without privacy."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from fedzo.objectives.objective import (
    CallableObjective,
    ModuleObjective,
    flatten_parameters,
    restore_parameters,
)
from scenarios import federate
from scenarios.runs.run_result import RunResult

STEPS, M, CLIENTS, ROUNDS = 2, 2, 4, 3
WALK: dict[str, Scalar] = {
    "client.num_directions": M,
    "client.mu": 0.01,
    "strategy.server_lr": 0.1,
    "strategy.local_steps": STEPS,
}
SEEDED: dict[str, Scalar] = {"strategy.noise_source": "stream"}


def net() -> nn.Module:
    parts = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    restore_parameters(parts, torch.linspace(-1, 1, flatten_parameters(parts).numel()).sin())
    return parts


def world() -> Callable[[int], ModuleObjective]:
    module = net()

    def make(client: int) -> ModuleObjective:
        inputs = torch.linspace(-2, 2, 48, dtype=torch.float64).reshape(12, 4).cos() + client
        targets = inputs[:, 0].gt(client).long()
        return ModuleObjective(module, nn.functional.cross_entropy, inputs, targets)

    return make


def run(strategy: str, **more: Any) -> RunResult:
    settings = {**WALK, **more.pop("settings", {})}
    told = {"num_rounds": ROUNDS, "num_clients": CLIENTS, "strategy": strategy, **more}
    return federate(world(), settings=settings, **told)


def test_without_noise_and_with_a_wide_clip_it_is_seed_scalar() -> None:
    silent = {"strategy.epsilon": float("inf"), "strategy.clip_norm": 1e9}
    private = run("dp_seed_scalar", settings=silent)
    assert torch.equal(private.solutions[0], run("seed_scalar").solutions[0])


def test_steps_are_no_longer_than_the_clip() -> None:
    tight = {"strategy.epsilon": float("inf"), "strategy.clip_norm": 1e-3}
    log = run("dp_seed_scalar", settings=tight).solutions[0].view(ROUNDS, STEPS * M)
    assert ((log.norm(dim=1) / (0.1 / M)) <= 1e-3 * (1 + 1e-6)).all()
    assert log.abs().max() > 0


def test_the_noise_is_that_of_a_replaced_client() -> None:
    """Between two runs of other noise, each number of the log differs by sqrt(2) z 2 C / n."""
    z, clip = 3.0, 1e-3
    settings = {**SEEDED, "strategy.noise_multiplier": z, "strategy.clip_norm": clip,
                "strategy.epsilon": 1e6, "strategy.evaluate_every": 0}  # fmt: skip
    logs = [
        run("dp_seed_scalar", seed=seed, num_rounds=15, settings=settings).solutions[0]
        for seed in range(2)
    ]
    found = torch.cat(logs) / (0.1 / M)
    expected = z * 2 * clip / CLIENTS
    assert float(found.std()) == pytest.approx(expected, rel=5 / (2 * len(found)) ** 0.5)


def test_the_budget_is_that_of_private_fedzo() -> None:
    ours = run("dp_seed_scalar", settings=SEEDED)
    points = {k: v for k, v in WALK.items() if k not in ("strategy.server_lr", "client.mu")}

    def quadratic(client: int) -> CallableObjective:
        return CallableObjective(function=lambda x: float(((x - client) ** 2).mean()), dim=5)

    theirs = federate(
        quadratic,
        num_clients=CLIENTS,
        num_rounds=ROUNDS,
        strategy="dp_fedzo",
        settings={**SEEDED, **points},
    )
    assert ours.last_records[0].epsilon == theirs.last_records[0].epsilon
    assert ours.last_records[0].epsilon == pytest.approx(3.0, rel=1e-3)


def test_what_is_refused() -> None:
    for wrong, sentence in (
        ({"strategy.unit": "record"}, "slopes are of whole clients"),
        ({"strategy.clip_norm": 0.0}, "clip_norm=0"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            run("dp_seed_scalar", settings=wrong)
