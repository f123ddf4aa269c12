"""FedProx and SCAFFOLD on linear objectives with exact slopes: closed forms and counts."""

import pytest
import torch
from torch import Tensor
from worlds import World, engine_of

from clients.averaging.first_order import FirstOrderConfig
from clients.averaging.zeroth_order import ZerothOrderConfig
from fedzo.errors import ConfigError
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from strategies import FedAvg, FedAvgConfig, Outcome, run_rounds
from strategies.averaging.fedavg_config import FedProxConfig
from strategies.averaging.fedprox import fedprox
from strategies.averaging.scaffold import Scaffold1, Scaffold2
from strategies.core.base import RoundStrategy
from strategies.core.driver import RunSettings

D, N, LR, STEPS = 4, 3, 0.1, 5
SLOPES = torch.arange(N * D, dtype=torch.float64).reshape(N, D) - 5
X0 = torch.ones(D, dtype=torch.float64)
EXACT = ZerothOrderConfig(estimator="coordinate", optimizer="sgd", mu=0.5)
LOCAL = FedAvgConfig(local_steps=STEPS, local_lr=LR)


def linear(client: int) -> TorchObjective:
    return TorchObjective(function=lambda x: x @ SLOPES[client], dim=D)


def bowl(client: int) -> TorchObjective:
    return TorchObjective(
        function=lambda x: ((client + 1) * (x - client).square()).sum(-1) / 2, dim=D
    )


def go(strategy: RoundStrategy, rounds: int, make: World = linear) -> Outcome:  # type: ignore[type-arg]
    settings = RunSettings(num_clients=N, num_rounds=rounds)
    return run_rounds(strategy, engine_of(make), OpenProblem(initial_x=X0), settings)


def test_fedprox_on_a_linear_objective_is_a_geometric_series() -> None:
    weight = 2.0
    offset = torch.zeros(N, D, dtype=torch.float64)
    for _ in range(STEPS):
        offset = offset - LR * (SLOPES + weight * offset)
    config = FedProxConfig(local_steps=STEPS, local_lr=LR, proximal_weight=weight)
    outcome = go(fedprox(config, client=EXACT), 1)
    torch.testing.assert_close(outcome.state.x, X0 + offset.mean(0))


def test_fedprox_without_weight_is_fedavg_bit_for_bit() -> None:
    config = FedProxConfig(local_steps=STEPS, local_lr=LR, proximal_weight=0.0)
    plain = go(FedAvg(LOCAL, client=EXACT), 3, bowl)
    assert torch.equal(go(fedprox(config, client=EXACT), 3, bowl).state.x, plain.state.x)


def optimum() -> Tensor:
    """The minimum of the mean of the bowls: mean of targets weighted by curvatures."""
    curvature = torch.arange(1, N + 1, dtype=torch.float64)
    targets = torch.arange(N, dtype=torch.float64)
    return ((curvature * targets).sum() / curvature.sum()).expand(D)


@pytest.mark.slow
@pytest.mark.parametrize("build", [Scaffold1, Scaffold2])
def test_scaffold_ends_at_the_optimum_where_fedavg_drifts(build: type) -> None:
    drifting = go(FedAvg(LOCAL, client=EXACT), 80, bowl).state.x
    corrected = go(build(LOCAL, client=EXACT), 80, bowl).state.x
    assert (drifting - optimum()).abs().max() > 0.05
    torch.testing.assert_close(corrected, optimum(), rtol=0, atol=1e-6)


def test_type_one_moves_all_clients_along_the_mean_gradient() -> None:
    outcome = go(Scaffold1(LOCAL, client=EXACT), 1)
    torch.testing.assert_close(outcome.state.x, X0 - LR * STEPS * SLOPES.mean(0))
    torch.testing.assert_close(outcome.state.control, SLOPES.mean(0))


def test_type_two_begins_as_fedavg_and_keeps_the_mean_of_raw_gradients() -> None:
    plain = go(FedAvg(LOCAL, client=EXACT), 1)
    outcome = go(Scaffold2(LOCAL, client=EXACT), 1)
    assert torch.equal(outcome.state.x, plain.state.x)
    torch.testing.assert_close(outcome.state.control, SLOPES.mean(0))


def test_a_sample_of_clients_changes_the_control_by_its_share() -> None:
    config = FedAvgConfig(local_steps=STEPS, local_lr=LR, participation=1 / 3)
    outcome = go(Scaffold2(config, client=EXACT), 1)
    control = outcome.state.control
    assert [torch.allclose(control, slopes / N) for slopes in SLOPES].count(True) == 1


def test_what_is_asked_and_sent() -> None:
    judged = N  # the open problem asks each client for its value once a round
    first = go(Scaffold1(LOCAL, client=EXACT), 1).records
    assert first[1].queries - first[0].queries == N * (STEPS + 1) * 2 * D + judged
    assert first[1].floats_up - first[0].floats_up == N * 2 * D + judged
    assert first[1].floats_down - first[0].floats_down == N * 3 * D + N * D
    second = go(Scaffold2(LOCAL, client=EXACT), 1).records
    assert second[1].queries - second[0].queries == N * STEPS * 2 * D + judged
    assert second[1].floats_up - second[0].floats_up == N * 2 * D + judged
    assert second[1].floats_down - second[0].floats_down == N * 2 * D + N * D


def test_the_safeguard_keeps_the_better_x_and_counts_two_queries() -> None:
    """One local step of rate 1.9 overshoots the bowls' mean: F rises without the safeguard."""
    wild = FedAvgConfig(local_steps=1, local_lr=1.9)
    safe = FedAvgConfig(local_steps=1, local_lr=1.9, safeguard=True)
    free = go(FedAvg(wild, client=EXACT), 3, bowl).records
    kept = go(FedAvg(safe, client=EXACT), 3, bowl).records
    assert free[3].value > free[0].value  # type: ignore[operator]
    assert [r.value for r in kept] == [kept[0].value] * 4
    assert kept[1].queries - kept[0].queries == N * (2 * D + 2) + N


def exact_gradients(config: FedAvgConfig, strategy: type, rounds: int) -> Outcome:
    """The same method with gradients by autograd: the rule of the first-order baselines."""
    return go(strategy(config, client=FirstOrderConfig()), rounds, bowl)


@pytest.mark.parametrize("strategy", [fedprox, Scaffold2])
def test_first_order_clients_are_corrected_alike(strategy: type) -> None:
    """Central differences along all axes are exact on quadratics."""
    if strategy is fedprox:
        config: FedAvgConfig = FedProxConfig(local_steps=STEPS, local_lr=LR, proximal_weight=0.7)
    else:
        config = LOCAL
    estimated = go(strategy(config, client=EXACT), 6, bowl)
    exact = exact_gradients(config, strategy, 6)
    torch.testing.assert_close(exact.state.x, estimated.state.x, rtol=1e-9, atol=1e-11)
    plain = exact_gradients(LOCAL, FedAvg, 6)
    assert not torch.allclose(plain.state.x, exact.state.x)


def test_compiled_steps_know_no_correction() -> None:
    client = FirstOrderConfig(compile=True)
    with pytest.raises(ConfigError, match=r"client\.compile=true knows plain local steps alone"):
        go(Scaffold2(LOCAL, client=client), 1, bowl)
