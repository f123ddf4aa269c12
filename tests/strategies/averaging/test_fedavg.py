"""FedAvg and its server optimizers: limits and hand-made cases."""

import pytest
import torch

from clients import make_rules
from clients.averaging.first_order import FirstOrderConfig
from clients.averaging.zeroth_order import ZerothOrderConfig
from fedzo.errors import ConfigError
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.optimizers import Adam
from fedzo.protocol.exchange import Replies
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from strategies import FedAvg, FedAvgConfig, RoundPlan, run_rounds
from strategies.core.driver import Outcome, RunSettings

D = 4
TARGETS = [torch.full((D,), float(c), dtype=torch.float64) for c in range(5)]
X0 = torch.linspace(-1, 1, D, dtype=torch.float64)


def make(client: int) -> TorchObjective:
    return TorchObjective(function=lambda x: 0.5 * (x - TARGETS[client]).square().sum(-1), dim=D)


def go(config: FedAvgConfig, rounds: int, rule: str = "first_order", **client: object) -> Outcome:
    cls = FirstOrderConfig if rule == "first_order" else ZerothOrderConfig
    strategy = FedAvg(config, client=cls(**client))  # type: ignore[arg-type]
    engine = InProcessEngine(FunctionEnvironment(make), make_rules())
    settings = RunSettings(num_clients=5, num_rounds=rounds)
    return run_rounds(strategy, engine, OpenProblem(initial_x=X0), settings)


def test_one_local_step_is_gradient_descent_on_the_mean() -> None:
    x = X0
    for _ in range(7):
        x = x - 0.2 * (x - 2.0)
    outcome = go(FedAvgConfig(local_steps=1, local_lr=0.2), 7)
    torch.testing.assert_close(outcome.state.x, x, rtol=1e-12, atol=1e-14)


def test_fedzo_with_a_full_basis_is_fedavg() -> None:
    config = FedAvgConfig(local_steps=3, local_lr=0.2)
    exact = go(config, 5)
    estimated = go(config, 5, "zeroth_order", estimator="coordinate", optimizer="sgd", mu=0.5)
    torch.testing.assert_close(estimated.state.x, exact.state.x, rtol=1e-10, atol=1e-12)


def test_the_server_optimizer_steps_along_the_negative_mean_update() -> None:
    config = FedAvgConfig(local_steps=1, local_lr=1.0, server_optimizer="adam", server_lr=0.1)
    outcome = go(config, 3)
    x, adam = X0, Adam()
    state = adam.init(x)
    for _ in range(3):
        state, x = adam.step(state, x, x - 2.0, 0.1)
    torch.testing.assert_close(outcome.state.x, x, rtol=1e-12, atol=1e-14)


def feed(config: FedAvgConfig, updates: torch.Tensor, examples: dict[int, int]) -> torch.Tensor:
    """Drive one round by hand."""
    strategy = FedAvg(config)
    steps = strategy.round(
        strategy.init(X0, 2), RoundPlan(round_index=1, num_clients=2, cohort=[0, 1])
    )
    [exchange] = next(steps)
    assert exchange.kind == "train.zeroth_order"
    assert torch.equal(exchange.question.x, X0)
    counts = {"num_examples": examples}
    try:
        steps.send([Replies(client_ids=[0, 1], tensors={"update": updates}, counts=counts)])
    except StopIteration as end:
        return end.value.x
    raise AssertionError("the round did not end")


@pytest.mark.parametrize(("weighting", "expected"), [("uniform", 2.0), ("examples", 1.5)])
def test_weighting_by_hand(weighting: str, expected: float) -> None:
    updates = torch.tensor([[1.0] * D, [3.0] * D], dtype=torch.float64)
    config = FedAvgConfig(weighting=weighting)  # type: ignore[arg-type]
    moved = feed(config, updates, {0: 3, 1: 1})
    torch.testing.assert_close(moved, X0 + expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "bad",
    [
        {"participation": 0.0},
        {"participation": 1.5},
        {"local_steps": 0},
        {"local_lr": 0.0},
        {"server_lr": -1.0},
        {"server_momentum": 1.0},
        {"min_answers": 0},
        {"timeout_s": 0.0},
        {"evaluate_every": -1},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        FedAvgConfig(**bad)  # type: ignore[arg-type]
