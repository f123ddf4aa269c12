"""FedAMD: its invariants (F1 to F9 of the specification), limits, roles and composition."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from clients import make_rules
from clients.anchored.anchor import AnchorConfig
from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.question import take_apart
from fedzo.protocol.questions import Miner
from fedzo.randomness import stream
from fedzo.runtime.engine import Engine
from fedzo.runtime.inprocess import InProcessEngine
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from strategies.anchored.fedamd import FedAMD, FedAMDConfig, optimal_probability
from strategies.core.driver import Callback, Outcome, RunSettings, Snapshot, run_rounds

N, D, EXAMPLES = 6, 5, 12


@dataclass(frozen=True)
class LeastSquares:
    """f(x) = mean over rows of (a x - b)^2 / 2."""

    a: Tensor
    b: Tensor
    lower: float = -float("inf")
    upper: float = float("inf")

    @property
    def dim(self) -> int:
        return self.a.shape[1]

    @property
    def num_examples(self) -> int:
        return len(self.a)

    def minibatch(self, indices: Tensor) -> "LeastSquares":
        return LeastSquares(self.a[indices], self.b[indices])

    def value(self, x: Tensor) -> Tensor:
        return 0.5 * (x @ self.a.T - self.b).square().mean(-1)

    def gradient(self, x: Tensor) -> Tensor:
        return self.a.T @ (self.a @ x - self.b) / len(self.a)


@dataclass
class World:
    """Six clients with a least-squares problem each."""

    noise_std: float = 0.0
    clients: list[LeastSquares] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = stream(5, "least squares")
        for _ in range(N):
            a = torch.from_numpy(random.standard_normal((EXAMPLES, D)))
            self.clients.append(LeastSquares(a, torch.from_numpy(random.standard_normal(EXAMPLES))))

    def cohort(self, client_ids: Any, problem: int) -> CohortObjective:
        return cohort_of([self.clients[i] for i in client_ids])

    def gradient(self, x: Tensor) -> Tensor:
        return torch.stack([client.gradient(x) for client in self.clients]).mean(0)


WORLD = World()
X0 = torch.linspace(-1, 1, D, dtype=torch.float64)


def go(
    config: FedAMDConfig,
    rounds: int,
    *,
    seed: int = 0,
    start: Tensor = X0,
    engine: Engine | None = None,
    callbacks: tuple[Callback, ...] = (),
    **client: Any,
) -> Outcome:
    strategy = FedAMD(config, client=AnchorConfig(**client))
    return run_rounds(
        strategy,
        engine or InProcessEngine(WORLD, make_rules()),
        OpenProblem(initial_x=start, asks_clients=False),
        RunSettings(num_clients=N, num_rounds=rounds, seed=seed),
        callbacks=callbacks,
    )


def states_of(config: FedAMDConfig, rounds: int, **more: Any) -> list[Any]:
    states: list[Any] = []

    def keep(snapshot: Snapshot) -> None:
        states.append(snapshot.state)

    go(config, rounds, callbacks=(keep,), **more)
    return states


def optimum() -> Tensor:
    a = torch.cat([client.a for client in WORLD.clients])
    b = torch.cat([client.b for client in WORLD.clients])
    return torch.linalg.solve(a.T @ a, a.T @ b)


@pytest.mark.parametrize("init", ["full", "zero", "lazy"])
def test_f1_with_p_1_nobody_mines_and_x_stays(init: Any) -> None:
    config = FedAMDConfig(anchor_probability=1.0, participation=0.5, init=init)
    states = states_of(config, 8)
    assert all(torch.equal(state.x, X0) for state in states)
    assert not torch.equal(states[1].gradient, states[0].gradient), "caches are refreshed"


@pytest.mark.parametrize("batch", [0, 3])
def test_f2_one_step_and_a_period_of_two_is_gradient_descent_every_second_round(batch: int) -> None:
    config = FedAMDConfig(local_steps=1, local_lr=0.2, server_lr=0.5)
    states = states_of(config, 9, batch_size=batch)
    x = X0
    for moved in range(1, 5):
        x = x - 0.5 * 0.2 * WORLD.gradient(x)
        torch.testing.assert_close(states[2 * moved].x, x, rtol=1e-13, atol=1e-15)
        assert torch.equal(states[2 * moved + 1].x, states[2 * moved].x)


def test_f3_with_one_step_the_miners_and_their_data_do_not_matter() -> None:
    config = FedAMDConfig(local_steps=1, local_lr=0.3, participation=0.5)
    states = states_of(config, 2, batch_size=2)
    torch.testing.assert_close(states[2].x, X0 - 0.3 * WORLD.gradient(X0), rtol=1e-13, atol=1e-15)


def test_f4_full_batches_telescope() -> None:
    """After k steps the direction is v + grad f_i(y_k) - grad f_i(x)."""
    steps, lr = 4, 0.1
    states = states_of(FedAMDConfig(local_steps=steps, local_lr=lr), 2)
    v, ends = WORLD.gradient(X0), []
    for client in WORLD.clients:
        y = X0
        for _ in range(steps):
            y = y - lr * (v + client.gradient(y) - client.gradient(X0))
        ends.append(y)
    torch.testing.assert_close(states[2].x, torch.stack(ends).mean(0), rtol=1e-12, atol=1e-14)


def test_f5_v_is_the_mean_of_the_caches_after_every_round() -> None:
    config = FedAMDConfig(anchor_probability=0.5, participation=0.5, local_lr=0.05)
    for state in states_of(config, 12, batch_size=4, anchor_batch_size=6)[1:]:
        assert state.anchors.clients.tolist() == list(range(N))
        torch.testing.assert_close(state.gradient, state.anchors.rows.mean(0))


def test_f6_coins_are_fair() -> None:
    """P(no miner) = p^A and P(no anchor) = (1 - p)^A."""
    chance, cohort, count = 0.7, 3, 4000
    heads = [stream(0, "anchors", 0, r).random(cohort) < chance for r in range(count)]
    for empirical, law in (
        (sum(h.all() for h in heads) / count, chance**cohort),
        (sum(not h.any() for h in heads) / count, (1 - chance) ** cohort),
    ):
        assert abs(empirical - law) < 5 * (law * (1 - law) / count) ** 0.5


@pytest.mark.slow
def test_f7_a_constant_p_converges_to_the_optimum_though_miners_use_minibatches() -> None:
    config = FedAMDConfig(anchor_probability=0.5, local_lr=0.05, local_steps=5, participation=0.5)
    end = go(config, 150, batch_size=3).state.x
    assert float(WORLD.gradient(end).norm()) < 1e-3 * float(WORLD.gradient(X0).norm())


def test_f7_with_p_0_the_stale_caches_stall() -> None:
    config = FedAMDConfig(anchor_probability=0.0, local_lr=0.02, local_steps=1)
    end = go(config, 30).state.x
    torch.testing.assert_close(end, X0 - 29 * 0.02 * WORLD.gradient(X0))


def test_f8_a_stationary_point_is_a_fixed_point() -> None:
    """No matter which minibatches: v is zero and every difference vanishes."""
    best = optimum()
    config = FedAMDConfig(anchor_probability=0.5, participation=0.5, local_lr=0.1)
    end = go(config, 20, start=best, batch_size=2).state.x
    torch.testing.assert_close(end, best, rtol=1e-12, atol=1e-13)


def test_f9_roles_depend_on_the_seed_and_not_on_data() -> None:
    config = FedAMDConfig(anchor_probability=0.5, participation=0.5, local_lr=0.05)

    def roles(seed: int, start: Tensor) -> list[Any]:
        asked: list[Any] = []

        class Noting(InProcessEngine):
            def perform(self, exchanges: Any, *, timeout_s: float) -> Any:
                asked.append([(e.kind, tuple(e.client_ids)) for e in exchanges])
                return super().perform(exchanges, timeout_s=timeout_s)

        go(config, 10, seed=seed, start=start, engine=Noting(WORLD, make_rules()))
        return asked

    assert roles(0, X0) == roles(0, 3 * X0)
    assert roles(0, X0) != roles(1, X0)


def test_only_miners_receive_the_gradient() -> None:
    class Checking(InProcessEngine):
        def perform(self, exchanges: Any, *, timeout_s: float) -> Any:
            for exchange in exchanges:
                mining = isinstance(exchange.question, Miner)
                assert ("direction" in take_apart(exchange.question).shared) == mining
            return super().perform(exchanges, timeout_s=timeout_s)

    config = FedAMDConfig(anchor_probability=0.5, local_lr=0.05)
    record = go(config, 6, engine=Checking(WORLD, make_rules())).records[-1]
    assert record.floats_up == 6 * N * D
    assert 6 * N * D < record.floats_down < 2 * 6 * N * D


def test_everything_is_counted() -> None:
    """Anchors differentiate all examples once, miners 2 (K - 1) minibatches."""
    config = FedAMDConfig(local_steps=4, local_lr=0.05)
    records = go(config, 3, batch_size=5).records
    assert records[1].examples == records[1].gradients * EXAMPLES == N * EXAMPLES
    assert records[2].gradients - records[1].gradients == N * 2 * 3
    assert records[2].examples - records[1].examples == N * 2 * 3 * 5
    assert records[3].examples - records[2].examples == N * EXAMPLES
    assert [r.floats_up for r in records[1:]] == [N * D, 2 * N * D, 3 * N * D]
    assert [r.floats_down for r in records[1:]] == [N * D, 3 * N * D, 4 * N * D]


def test_what_stands_for_clients_that_were_never_anchors() -> None:
    config = {"anchor_probability": 1.0, "participation": 0.5}
    zero = states_of(FedAMDConfig(init="zero", **config), 1)[-1]
    lazy = states_of(FedAMDConfig(init="lazy", **config), 1)[-1]
    assert len(zero.anchors.clients) == N // 2
    torch.testing.assert_close(lazy.gradient, lazy.anchors.rows.mean(0))
    torch.testing.assert_close(zero.gradient, lazy.gradient / 2)


@pytest.mark.parametrize(("period", "init"), [(2, "full"), (3, "full"), (3, "lazy")])
def test_everybody_anchors_once_a_period(period: int, init: Any) -> None:
    config = FedAMDConfig(anchor_period=period, init=init)
    chances = [config.probability(step, 20, 100) for step in range(3 * period)]
    first = period - 1 if init == "full" else 0
    assert [step for step, chance in enumerate(chances) if chance] == [
        first + k * period for k in range(3)
    ]


def test_the_optimal_probabilities_are_those_of_the_specification() -> None:
    table = {(100, 20): (0.880, 0.488, 0.887), (20, 10): (0.811, 0.472, 0.836)}
    for (clients, cohort), expected in table.items():
        for name, value in zip(("opta", "optb", "optc"), expected, strict=True):
            assert optimal_probability(name, cohort, clients) == pytest.approx(value, abs=1e-3)


def test_a_decaying_probability_starts_at_one_and_falls() -> None:
    config = FedAMDConfig(anchor_probability="decaying")
    chances = [config.probability(step, 20, 100) for step in range(500)]
    assert chances[0] == pytest.approx(1 / torch.log(torch.tensor(2.8)).item())
    assert chances == sorted(chances, reverse=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anchor_period": 1}, "anchor_period=1 must be at least 2"),
        ({"anchor_probability": 1.5}, "anchor_probability=1.5 must be from 0 to 1"),
        ({"anchor_probability": "foo"}, "one of periodic, decaying, opta, optb, optc"),
        ({"anchor_probability": 0.5, "anchor_period": 3}, "leave one of them out"),
        ({"norm_test": -1.0}, "norm_test=-1.0 must be 0 or more"),
        ({"local_steps": 0}, "local_steps=0 must be at least 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FedAMDConfig(**settings)


def test_zeroth_order_with_a_full_basis_is_first_order() -> None:
    """All F-invariants then hold to the error of the differences."""
    config = FedAMDConfig(anchor_probability=0.5, participation=0.5, local_lr=0.05)
    exact = go(config, 12, batch_size=4)
    estimated = go(
        config, 12, batch_size=4, gradient="zeroth_order", estimator="coordinate", mu=0.1
    )
    torch.testing.assert_close(estimated.state.x, exact.state.x, rtol=1e-9, atol=1e-11)
    assert estimated.records[-1].queries == 2 * D * exact.records[-1].gradients


def test_short_answers_are_replayed_to_what_long_ones_say() -> None:
    """Slopes of (K - 1) m < d numbers stand for the same update; here they are told apart by d."""
    made = {
        "strategy.local_steps": 3,
        "strategy.participation": 0.5,
        "client.gradient": "zeroth_order",
        "client.num_directions": 4,
        "client.anchor_directions": 4,
        "scenario.dim": 30,
    }
    experiment = make_experiment("quadratic", "fedamd", num_rounds=4, num_clients=6, settings=made)
    record = simulate(experiment).records[-1]
    first, mined, anchored = 6 * 4, 3 * 2 * 4, 3 * 4
    assert record.floats_up == first + 2 * mined + anchored, "d is 30, and nobody sends 30"


def test_a_budget_is_never_exceeded_and_ends_the_run() -> None:
    made = {"client.gradient": "zeroth_order", "scenario.dim": 30, "client.anchor_directions": 7}
    experiment = make_experiment(
        "quadratic", "fedamd", num_rounds=500, query_budget=3000, settings=made
    )
    result = simulate(experiment)
    assert result.stops == ["budget"] or result.stops == ("budget",)
    assert 2000 < result.queries <= 3000


@pytest.mark.slow
@pytest.mark.parametrize("aggregator", ["trimmed_mean", "nnm | trimmed_mean", "geometric_median"])
@pytest.mark.parametrize("gradient", ["exact", "zeroth_order"])
def test_a_robust_rule_guards_updates_and_anchors(aggregator: str, gradient: str) -> None:
    settings = {
        "scenario.dim": 30,
        "strategy.local_lr": 0.03,
        "client.gradient": gradient,
        "byzantine.attack": "scaled_sign_flip",
        "byzantine.num_clients": 3,
    }
    rules = {"strategy.aggregator": aggregator, "strategy.num_byzantine": 3}

    def gap(more: dict[str, Any]) -> float:
        made = make_experiment(
            "quadratic", "fedamd", num_rounds=30, num_clients=15, settings={**settings, **more}
        )
        gaps = [record.metrics["gap"] for record in simulate(made).records]
        return gaps[-1] / gaps[0]

    assert gap(rules) < 0.3
    assert gap({}) > 0.6


def test_few_miners_do_not_end_a_run_with_a_robust_rule() -> None:
    """With p = 0.9 of 5 sampled clients, most rounds have fewer miners than the rule needs."""
    settings = {
        "strategy.aggregator": "median",
        "strategy.num_byzantine": 1,
        "strategy.anchor_probability": 0.9,
        "strategy.participation": 0.5,
        "scenario.dim": 10,
    }
    made = make_experiment("quadratic", "fedamd", num_rounds=12, num_clients=10, settings=settings)
    assert len(simulate(made).records) == 13


def test_rounds_that_need_nothing_do_not_end_a_budget() -> None:
    """With one local step only anchors ask: a first pass of 6 times 5, then 6 times 5 in turn."""
    config = FedAMDConfig(local_steps=1, local_lr=0.2)
    client = AnchorConfig(gradient="zeroth_order", estimator="forward", anchor_directions=4)
    outcome = run_rounds(
        FedAMD(config, client=client),
        InProcessEngine(WORLD, make_rules()),
        OpenProblem(initial_x=X0, asks_clients=False),
        RunSettings(num_clients=N, num_rounds=50, query_budget=100),
    )
    assert outcome.stop == "budget"
    assert outcome.records[-1].queries == 90
    assert outcome.records[-1].round_index == 6, "pass, mine, anchor, mine, anchor, mine"
