"""MIFA, FedNova, FedPAGE, BVR-L-SGD and FedSAGA on quadratics: cases by hand, limits and laws."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from clients import make_rules
from clients.anchored.anchor import AnchorConfig
from clients.averaging.first_order import FirstOrderConfig
from fedzo.errors import ConfigError
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.questions.training_config import GradientConfig
from fedzo.randomness import stream, streams
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from strategies.anchored.fedpage import BVRLSGDConfig, FedPAGE, FedPAGEConfig
from strategies.anchored.fedsaga import FedSAGA, FedSAGAConfig
from strategies.averaging.fedavg import FedAvg, FedAvgConfig
from strategies.averaging.fednova import FedNova, FedNovaConfig
from strategies.averaging.mifa import MIFA, MIFAConfig
from strategies.core.driver import Outcome, RunSettings, run_rounds
from strategies.core.table import ClientTable

N, D = 5, 4
SCALES = [torch.linspace(0.5, 1.5, D, dtype=torch.float64).roll(i) for i in range(N)]
X0 = torch.linspace(-1, 1, D, dtype=torch.float64)


def gradient(client: int, x: Tensor) -> Tensor:
    return SCALES[client] * (x - client)


def make(client: int) -> TorchObjective:
    return TorchObjective(
        function=lambda x: 0.5 * (SCALES[client] * (x - client).square()).sum(-1), dim=D
    )


BEST = sum(s * i for i, s in enumerate(SCALES)) / sum(SCALES)
CLIENTS = {MIFA: FirstOrderConfig, FedNova: FirstOrderConfig, FedAvg: FirstOrderConfig}


def go(method: Any, config: Any, rounds: int, seed: int = 0, **client: Any) -> Outcome:
    default = GradientConfig if method is FedSAGA else AnchorConfig
    return run_rounds(
        method(config, client=CLIENTS.get(method, default)(**client)),
        InProcessEngine(FunctionEnvironment(make), make_rules()),
        OpenProblem(initial_x=X0, asks_clients=False),
        RunSettings(num_clients=N, num_rounds=rounds, seed=seed),
    )


def cohorts(seed: int, rounds: int, size: int) -> list[list[int]]:
    drawn = [stream(seed, "cohort", 0, r + 1).choice(N, size, replace=False) for r in range(rounds)]
    return [sorted(ids.tolist()) for ids in drawn]


def test_mifa_steps_by_the_mean_of_everybodys_last_update() -> None:
    config = MIFAConfig(local_steps=1, local_lr=0.2, participation=0.4)
    x, updates = X0, torch.zeros(N, D, dtype=torch.float64)
    for round_index, ids in enumerate(cohorts(0, 6, 2)):
        for client in range(N) if round_index == 0 else ids:
            updates[client] = -0.2 * gradient(client, x)
        x = x + updates.mean(0)
    torch.testing.assert_close(go(MIFA, config, 6).state.x, x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("init", ["zero", "lazy"])
def test_mifa_without_a_first_pass(init: Any) -> None:
    config = MIFAConfig(local_steps=1, local_lr=0.2, participation=0.4, init=init)
    [ids] = cohorts(0, 1, 2)
    expected = sum(-0.2 * gradient(client, X0) for client in ids) / (2 if init == "lazy" else N)
    torch.testing.assert_close(go(MIFA, config, 1).state.x, X0 + expected)


def test_mifa_and_fednova_with_everybody_and_equal_work_are_fedavg() -> None:
    local = {"local_steps": 4, "local_lr": 0.1}
    plain = go(FedAvg, FedAvgConfig(**local), 5).state.x
    mifa = go(MIFA, MIFAConfig(**local), 5).state.x
    nova = go(FedNova, FedNovaConfig(min_steps=4, **local), 5).state.x
    torch.testing.assert_close(mifa, plain, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(nova, plain, rtol=1e-12, atol=1e-14)


def test_fednova_by_hand() -> None:
    config = FedNovaConfig(min_steps=1, local_steps=6, local_lr=0.05)
    speeds = streams(0, "local steps", 0, clients=range(N))
    steps = [int(speed.integers(1, 7)) for speed in speeds]
    assert len(set(steps)) > 1
    normalized = []
    for client, count in enumerate(steps):
        y = X0
        for _ in range(count):
            y = y - 0.05 * gradient(client, y)
        normalized.append((y - X0) / count)
    expected = X0 + sum(steps) / N * torch.stack(normalized).mean(0)
    torch.testing.assert_close(go(FedNova, config, 1).state.x, expected)


def test_fednova_knows_the_work_of_momentum() -> None:
    """With a constant gradient an update is a_i times the step, so all agree after division."""
    for rho in (0.0, 0.5, 0.9):
        velocity, total, weights = 0.0, 0.0, []
        for _ in range(7):
            velocity = rho * velocity + 1.0
            total += velocity
            weights.append(total)
        strategy = FedNova(FedNovaConfig(), client=FirstOrderConfig(momentum=rho))
        for count, work in enumerate(weights, start=1):
            assert strategy._work(count) == pytest.approx(work)


@pytest.mark.slow
def test_unequal_work_biases_plain_averages_and_not_normalized_ones() -> None:
    """Small steps: the fixed point of the normalized method is the optimum."""
    settings = {"min_steps": 1, "local_steps": 9, "local_lr": 0.02}
    fair = go(FedNova, FedNovaConfig(**settings), 60).state.x
    plain = go(FedNova, FedNovaConfig(normalized=False, **settings), 60).state.x
    assert float((fair - BEST).norm()) < 0.5 * float((plain - BEST).norm())


def test_fednova_refuses_other_local_optimizers() -> None:
    with pytest.raises(ConfigError, match=r"client\.optimizer=sgd"):
        FedNova(FedNovaConfig(), client=FirstOrderConfig(optimizer="adam"))
    with pytest.raises(ConfigError, match="min_steps=11 must be from 1 to local_steps=10"):
        FedNovaConfig(min_steps=11)


def test_a_recursive_gradient_with_everybody_is_the_gradient() -> None:
    """Full batches and participation: v stays grad F, however seldom it is renewed."""
    config = FedPAGEConfig(full_probability=0.0, local_steps=1, local_lr=0.3)
    x = X0
    for _ in range(6):
        x = x - 0.3 * torch.stack([gradient(i, x) for i in range(N)]).mean(0)
    outcome = go(FedPAGE, config, 6)
    torch.testing.assert_close(outcome.state.x, x, rtol=1e-11, atol=1e-13)
    first, later = outcome.records[1], outcome.records[2]
    assert first.floats_up == 2 * N * D
    assert later.floats_down - first.floats_down == 4 * N * D, "x, old x; then x, v"


def test_bvr_l_sgd_asks_one_miner_and_everybody_in_turn() -> None:
    config = BVRLSGDConfig(restart_period=3, local_steps=3, local_lr=0.05, participation=0.4)
    records = go(FedPAGE, config, 6).records
    sizes = [b.floats_up - a.floats_up for a, b in itertools.pairwise(records)]
    assert sizes == [(N + 1) * D, 3 * D, 3 * D] * 2


@pytest.mark.more
@pytest.mark.parametrize("config", [FedPAGEConfig(local_lr=0.1), BVRLSGDConfig(local_lr=0.1)])
def test_recursive_gradients_converge(config: Any) -> None:
    """BVR-L-SGD keeps one client's drifted result, so only its neighborhood is reached."""
    end = go(FedPAGE, config, 30).state.x
    assert float((end - BEST).norm()) < 0.1 * float((X0 - BEST).norm())


def test_fedsaga_by_hand() -> None:
    config = FedSAGAConfig(
        server_optimizer="sgd",
        server_momentum=0.5,
        server_lr=0.1,
        lookahead=0.7,
        participation=0.4,
    )
    x, old, velocity = X0, X0, torch.zeros_like(X0)
    table = torch.zeros(N, D, dtype=torch.float64)
    for ids in cohorts(0, 7, 2):
        y = x + 0.7 * (x - old)
        fresh = torch.stack([gradient(i, y) for i in ids])
        v = (fresh - table[ids]).mean(0) + table.mean(0)
        table[ids] = fresh
        velocity = 0.5 * velocity + v
        x, old = x - 0.1 * velocity, x
    torch.testing.assert_close(go(FedSAGA, config, 7).state.x, x, rtol=1e-12, atol=1e-13)


def test_fedsaga_with_everybody_is_gradient_descent() -> None:
    config = FedSAGAConfig(
        server_optimizer="sgd", server_momentum=0.0, server_lr=0.3, lookahead=0.0
    )
    x = X0
    for _ in range(5):
        x = x - 0.3 * torch.stack([gradient(i, x) for i in range(N)]).mean(0)
    torch.testing.assert_close(go(FedSAGA, config, 5).state.x, x, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("init", ["zero", "full"])
def test_fedsaga_converges_to_the_optimum_with_two_of_five(init: Any) -> None:
    """Its v is unbiased and its variance vanishes at the optimum; averaging anchors stays away."""
    sgd = {
        "server_optimizer": "sgd",
        "server_momentum": 0.0,
        "participation": 0.4,
        "lookahead": 0.0,
    }
    config = FedSAGAConfig(server_lr=0.2, init=init, **sgd)
    assert float((go(FedSAGA, config, 120).state.x - BEST).norm()) < 1e-4
    plain = FedAvgConfig(local_steps=1, local_lr=0.2, participation=0.4)
    assert float((go(FedAvg, plain, 120).state.x - BEST).norm()) > 1e-2


def test_a_full_first_round_asks_everybody() -> None:
    config = FedSAGAConfig(init="full", participation=0.4)
    records = go(FedSAGA, config, 3).records
    assert [r.floats_up for r in records] == [0, N * D, (N + 2) * D, (N + 4) * D]


@pytest.mark.more
@pytest.mark.parametrize("strategy", ["fedsaga", "mifa", "fedpage", "scaffold_exact"])
def test_methods_with_a_memory_can_be_robust(strategy: str) -> None:
    """FedPAGE and the tables meet more liars among all clients than a cohort has."""
    settings = {
        "scenario.dim": 30,
        "strategy.participation": 0.5,
        "byzantine.attack": "inner_product",
        "byzantine.scale": 20.0,
        "byzantine.num_clients": 4,
    }
    rules = {"strategy.aggregator": "nnm | trimmed_mean", "strategy.num_byzantine": 4}

    def gap(more: dict[str, Any]) -> float:
        made = make_experiment(
            "quadratic", strategy, num_rounds=25, num_clients=20, settings={**settings, **more}
        )
        gaps = [record.metrics["gap"] for record in simulate(made).records]
        return gaps[-1] / gaps[0]

    robust = gap(rules)
    assert robust < 0.7
    assert robust < 0.6 * gap({})


def test_a_table_keeps_the_last_row_of_each_client() -> None:
    table = ClientTable.empty(torch.zeros(2)).renewed([3, 1], torch.tensor([[3.0, 3], [1, 1]]))
    table = table.renewed([0, 3], torch.tensor([[9.0, 9], [4, 4]]))
    assert table.clients.tolist() == [0, 1, 3]
    assert table.rows.tolist() == [[9, 9], [1, 1], [4, 4]]
    assert table.of([3, 2, 0]).tolist() == [[4, 4], [0, 0], [9, 9]]
    assert table.of([7]).tolist() == [[0, 0]]
    assert table.everybody(5).sum() == 28
    assert len(table.known("lazy", 5)) == 3
    assert len(table.known("full", 5)) == 5


def gap(strategy: str, **settings: Any) -> float:
    """Return the last gap over the first on a quadratic with 20 clients."""
    given = {"scenario.dim": 30, **{k.replace("__", "."): v for k, v in settings.items()}}
    rounds = given.pop("rounds", 30)
    made = make_experiment("quadratic", strategy, num_rounds=rounds, num_clients=20, settings=given)
    gaps = [record.metrics["gap"] for record in simulate(made).records]
    return gaps[-1] / gaps[0]


def test_a_first_pass_meets_all_liars() -> None:
    """Five sampled clients hold one liar, all twenty four."""
    attacked = {
        "strategy__init": "full",
        "strategy__participation": 0.25,
        "strategy__aggregator": "trimmed_mean",
        "strategy__num_byzantine": 1,
        "byzantine__attack": "inner_product",
        "byzantine__scale": 50.0,
        "byzantine__num_clients": 4,
    }
    assert gap("fedsaga", rounds=2, strategy__server_lr=0.05, **attacked) < 0.95


@pytest.mark.parametrize("strategy", ["fedpage", "bvr_l_sgd"])
def test_changes_are_clipped_around_nothing(strategy: str) -> None:
    """Around v they would add v to itself."""
    rule = "centered_clipping(radius=0.3)"
    assert gap(strategy, strategy__aggregator=rule, rounds=60) < 0.2


def test_a_rule_that_cannot_bear_all_clients_is_refused_before_anything_runs() -> None:
    settings = {
        "strategy.participation": 0.3,
        "strategy.aggregator": "smea",
        "strategy.num_byzantine": 2,
    }
    for strategy in ("fedamd", "fedsaga", "fedpage", "mifa"):
        with pytest.raises(ConfigError, match="smea"):
            make_experiment("quadratic", strategy, num_clients=60, settings=settings)
    make_experiment("quadratic", "fedavg", num_clients=60, settings=settings)


def test_a_lazy_table_grows_until_a_rule_can_be_asked() -> None:
    robust = {"strategy__aggregator": "trimmed_mean", "strategy__num_byzantine": 1}
    lazy = {"strategy__init": "lazy", "strategy__participation": 0.2}
    assert gap("mifa", rounds=30, **lazy, **robust) < 0.7


def test_one_miner_cannot_be_robust() -> None:
    with pytest.raises(ConfigError, match="num_byzantine=2 must be 0"):
        BVRLSGDConfig(num_byzantine=2)


def test_attacks_on_slopes_are_attacks_on_what_they_stand_for() -> None:
    """Mean slopes along different directions are nearly nothing, and so were lies about them."""
    attack = {
        "byzantine__attack": "inner_product",
        "byzantine__scale": 3.0,
        "byzantine__num_clients": 8,
        "strategy__participation": 1.0,
    }
    values = {"client__gradient": "zeroth_order", "client__num_directions": 10}
    assert gap("fedsaga", rounds=20, **values) < 0.9
    assert gap("fedsaga", rounds=20, **values, **attack) > 1.0


def test_fedsaga_with_local_steps_by_hand() -> None:
    config = FedSAGAConfig(
        server_optimizer="sgd",
        server_momentum=0.0,
        server_lr=0.3,
        lookahead=0.0,
        local_steps=3,
        local_lr=0.1,
    )
    x = X0
    for _ in range(4):
        means = []
        for i in range(N):
            y, total = x, torch.zeros_like(x)
            for _ in range(3):
                total, y = total + gradient(i, y), y - 0.1 * gradient(i, y)
            means.append(total / 3)
        x = x - 0.3 * torch.stack(means).mean(0)
    torch.testing.assert_close(go(FedSAGA, config, 4).state.x, x, rtol=1e-12, atol=1e-13)


def test_walks_from_values_along_all_axes_are_exact() -> None:
    config = FedSAGAConfig(local_steps=3, local_lr=0.1, participation=0.6)
    exact = go(FedSAGA, config, 6).state.x
    values = {"gradient": "zeroth_order", "estimator": "coordinate", "mu": 0.1}
    torch.testing.assert_close(go(FedSAGA, config, 6, **values).state.x, exact)


def test_a_walk_ends_where_its_budget_does() -> None:
    settings = {
        "client.gradient": "zeroth_order",
        "client.num_directions": 5,
        "strategy.local_steps": 4,
        "scenario.dim": 20,
    }
    made = make_experiment(
        "quadratic", "fedsaga", num_rounds=99, query_budget=5 * 60, settings=settings
    )
    result = simulate(made)
    assert result.queries == 300, "24 a client and round, then the rest: 12 of the last 12"
    assert list(result.stops) == ["budget"]


def test_the_norm_test_is_about_one_gradient() -> None:
    with pytest.raises(ConfigError, match=r"norm_test=0\.5 is about one gradient"):
        FedSAGAConfig(norm_test=0.5, local_steps=2)
