"""DIFF2: its invariants (D1 to D10 of the specification), noise, budget, missing clients, forms."""

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clients import make_rules
from fedzo.aggregation import median, trimmed_mean
from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.privacy.accountant import Ledger, noise_for
from fedzo.privacy.clipping import clip_rows
from fedzo.protocol.exchange import Replies
from fedzo.protocol.questions.private import ClippedConfig
from fedzo.randomness import stream
from fedzo.records.checkpoint import Checkpoint
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.middleware.faulty import FaultConfig, Faulty
from scenarios.problems.mlp_cohort import MLPShards, mlp_dim
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from strategies.core.driver import Outcome, RunSettings, Snapshot, run_rounds
from strategies.private.diff2 import DIFF2
from strategies.private.diff2_config import DIFF2Config
from strategies.private.diff2_noise import paper_multipliers, releases

P, RECORDS = 4, 9
LAYERS = (3, 4, 1)
D = mlp_dim(LAYERS)
SIZES = torch.tensor([RECORDS] * P)
FREE: dict[str, Any] = {
    "epsilon": math.inf,
    "clip_norm": math.inf,
    "difference_clip": math.inf,
    "noise_source": "stream",
}


def make_shards(sizes: Tensor = SIZES, key: int = 0) -> MLPShards:
    random, total = stream(9, "records", key), int(sizes.sum())
    return MLPShards(
        inputs=torch.from_numpy(random.standard_normal((total, LAYERS[0]))),
        targets=torch.from_numpy(random.standard_normal(total)),
        offsets=sizes.cumsum(0) - sizes,
        sizes=sizes,
        layers=LAYERS,
        loss="squared",
        activation="softplus",
    )


@dataclass
class World:
    """Clients with a few records each."""

    shards: MLPShards = field(default_factory=make_shards)
    noise_std: float = 0.0

    def cohort(self, client_ids: Any, problem: int) -> CohortObjective:
        return self.shards.of(client_ids)

    def gradient(self, x: Tensor) -> Tensor:
        count = self.shards.num_clients
        free = torch.full((count,), torch.inf, dtype=torch.float64)
        found = self.shards.clipped_sums(x.expand(count, -1), None, free, 1 << 20)
        return (found.sums / self.shards.sizes.unsqueeze(1)).mean(dim=0)


X0 = torch.from_numpy(stream(9, "start").standard_normal(D))


def states_of(
    config: DIFF2Config, rounds: int, *, world: World | None = None, seed: int = 0, **client: Any
) -> tuple[list[Any], Outcome]:
    world = world or World()
    states: list[Any] = []

    def keep(snapshot: Snapshot) -> None:
        states.append(snapshot.state)

    outcome = run_rounds(
        DIFF2(config, client=ClippedConfig(**client)),
        InProcessEngine(world, make_rules()),
        OpenProblem(initial_x=X0, asks_clients=False),
        RunSettings(num_clients=world.shards.num_clients, num_rounds=rounds, seed=seed),
        callbacks=[keep],
    )
    return states, outcome


def descent(rounds: int, lr: float, world: World | None = None) -> Tensor:
    x, world = X0, world or World()
    for _ in range(rounds):
        x = x - lr * world.gradient(x)
    return x


@pytest.mark.parametrize("period", [1, 7, 50])
@pytest.mark.parametrize("clips", [math.inf, 1e3], ids=["D1", "D2"])
def test_d1_d2_without_noise_and_clipping_it_is_gradient_descent(period: int, clips: float) -> None:
    config = DIFF2Config(
        **{**FREE, "clip_norm": clips, "difference_clip": clips},
        restart_period=period,
        server_lr=0.05,
    )
    states, outcome = states_of(config, 20)
    torch.testing.assert_close(states[-1].x, descent(20, 0.05), rtol=1e-12, atol=1e-13)
    assert outcome.records[-1].epsilon == math.inf


@pytest.mark.parametrize("memory", ["stage", "filter"])
def test_the_filter_too_is_gradient_descent_without_noise(memory: Any) -> None:
    states, _ = states_of(DIFF2Config(**FREE, memory=memory, server_lr=0.05), 12)
    torch.testing.assert_close(states[-1].x, descent(12, 0.05), rtol=1e-12, atol=1e-13)


def test_d3_t_1_is_dp_gd_by_hand() -> None:
    config = DIFF2Config(
        restart_period=1, clip_norm=0.7, server_lr=0.1, epsilon=50.0, noise_source="stream"
    )
    states, _ = states_of(config, 5, seed=3)
    std = noise_for(50.0, 1e-5) * math.sqrt(5) * 2 * 0.7 / (RECORDS * P)
    world, x = World(), X0
    for r in range(1, 6):
        norms = torch.full((P,), 0.7, dtype=torch.float64)
        sums = world.shards.clipped_sums(x.expand(P, -1), None, norms, 1 << 20).sums
        noise = stream(3, "privacy", "fresh", 0, r).standard_normal(D)
        x = x - 0.1 * ((sums / RECORDS).mean(dim=0) + std * torch.from_numpy(noise))
        torch.testing.assert_close(states[r].x, x, rtol=1e-12, atol=1e-13)


def test_d4_the_error_has_no_bias_and_the_stages_variance() -> None:
    """Given the path, v - grad is a sum of the stage's noises: mean 0, and their variances add."""
    config = DIFF2Config(
        epsilon=80.0,
        clip_norm=100.0,
        difference_clip=100.0,
        restart_period=5,
        server_lr=0.01,
        noise_source="stream",
    )
    world, errors = World(), []
    for seed in range(30):
        states, _ = states_of(config, 4, world=world, seed=seed)
        last = states[-1]
        scale = math.sqrt(sum(state.privacy.noise_std**2 for state in states[1:]))
        errors.append((last.gradient - world.gradient(last.asked)) / scale)
    z = torch.stack(errors).flatten()
    assert abs(float(z.mean())) < 5 / len(z) ** 0.5
    assert abs(float(z.var()) - 1) < 5 * (2 / len(z)) ** 0.5


def test_d6_without_steps_nothing_moves_inside_a_stage() -> None:
    config = DIFF2Config(server_lr=0.0, restart_period=4, noise_source="stream")
    states, _ = states_of(config, 8)
    for first in (1, 5):
        stage = [state.gradient for state in states[first : first + 4]]
        assert all(torch.equal(v, stage[0]) for v in stage)
    assert not torch.equal(states[4].gradient, states[5].gradient)
    assert states[3].privacy.noise_std == 0


def test_d7_the_budget_is_spent_exactly_and_restarts_are_counted_up() -> None:
    """R = 10, T = 9 has two restarts, where R / T says 1.1."""
    for rounds, period in ((10, 9), (12, 4), (7, 1), (5, 100)):
        config = DIFF2Config(restart_period=period, noise_source="stream")
        states, outcome = states_of(config, rounds)
        plan = releases(rounds, period)
        assert plan.restarts == math.ceil(rounds / period)
        m = states[-1].multipliers
        counts = [int(n) for n in states[-1].privacy.ledger.rows[:, 1].tolist()]
        assert counts == [n for n in (plan.restarts, plan.changes) if n]
        epsilon = outcome.records[-1].epsilon
        assert epsilon == pytest.approx(3.0, rel=1e-6)
        assert Ledger.empty().after(m.restart, plan.restarts).epsilon(1e-5) <= 3.0
        costs = [record.epsilon for record in outcome.records]
        assert costs == sorted(costs)
        assert costs[0] == 0


@pytest.mark.parametrize(
    ("period", "expected"), [(6, 2.299), (20, 2.328), (200, 2.340), (1, None), (1500, None)]
)
def test_the_papers_noise_leaves_some_of_the_budget(period: int, expected: float | None) -> None:
    config = DIFF2Config(calibration="paper", restart_period=period, noise_source="stream")
    plan = releases(2000, period)
    ledger = plan.ledger(paper_multipliers(plan, config.base.privacy))
    assert ledger.epsilon(1e-5) < 3.0, "never more, also where T does not divide R"
    if expected:
        assert ledger.epsilon(1e-5, accountant="pld") == pytest.approx(expected, abs=6e-3)
    states, outcome = states_of(replace(config, restart_period=min(period, 4)), 8)
    assert 0 < outcome.records[-1].epsilon < 3.0  # type: ignore[operator]
    assert states[-1].multipliers.restart > 0


@pytest.mark.slow
def test_d8_noise_has_the_stated_scale() -> None:
    """Ten thousand draws of restarts and changes, against their clip norms and sensitivities."""
    config = DIFF2Config(
        restart_period=2, clip_norm=0.5, difference_clip=2.0, server_lr=0.1, noise_source="stream"
    )
    world, draws = World(), {"fresh": [], "change": []}  # type: ignore[var-annotated]
    norms = torch.full((P,), 0.5, dtype=torch.float64)
    first = world.shards.clipped_sums(X0.expand(P, -1), None, norms, 1 << 20).sums
    clean = (first / RECORDS).mean(dim=0)
    for seed in range(10_000 // D + 1):
        states, _ = states_of(config, 2, world=world, seed=seed)
        m, sensitivity = states[-1].multipliers, 2 / (RECORDS * P)
        draws["fresh"].append((states[1].gradient - clean) / (m.restart * 0.5 * sensitivity))
        moved = states[1].x - X0
        radius = 2.0 * float(moved.norm())
        norms = torch.full((P,), radius, dtype=torch.float64)
        x = states[1].x.expand(P, -1)
        change = world.shards.clipped_sums(x, X0.expand(P, -1), norms, 1 << 20).sums / RECORDS
        noise = states[2].gradient - states[1].gradient - change.mean(dim=0)
        draws["change"].append(noise / (m.change * radius * sensitivity))
    for found in draws.values():
        z = torch.stack(found).flatten()
        assert len(z) >= 10_000
        assert abs(float(z.std()) - 1) < 5 / (2 * len(z)) ** 0.5


def neighbors(key: int, clients: int = P) -> tuple[World, World]:
    """Return worlds in which one record of each client differs; every third by far and opposite."""
    random = stream(11, "neighbors", key)
    own = make_shards(torch.tensor([RECORDS] * clients), key=key)
    rows = own.offsets + torch.from_numpy(random.integers(0, RECORDS, clients))
    targets, inputs = own.targets.clone(), own.inputs.clone()
    targets[rows] = torch.from_numpy(10 * random.standard_normal(clients))
    inputs[rows] = 3 * torch.from_numpy(random.standard_normal((clients, LAYERS[0])))
    far = rows[::3]
    inputs[far] = own.inputs[far]
    here, there = own.targets.clone(), targets
    here[far], there[far] = 1e6, -1e6
    other = replace(own, targets=there, inputs=inputs)
    return World(replace(own, targets=here)), World(other)


@pytest.mark.parametrize("changes", [False, True])
def test_d5_d9_ten_thousand_neighbors_never_exceed_the_bound(changes: bool) -> None:
    """Each client of a cohort is a pair of neighbors: its clipped sums differ by 2 C at most."""
    largest, pairs = 0.0, 1000
    for key in range(5):
        random = stream(12, "points", key)
        x = torch.from_numpy(random.standard_normal((pairs, D)))
        steps = torch.from_numpy(random.uniform(0.01, 1.0, (pairs, 1)))
        previous = x + steps * torch.from_numpy(random.standard_normal((pairs, D)))
        norms = torch.from_numpy(random.uniform(0.1, 2.0, pairs))
        told = [
            world.shards.clipped_sums(x, previous if changes else None, norms, 1 << 24).sums
            for world in neighbors(key, pairs)
        ]
        moved = (told[0] - told[1]).norm(dim=1) / (2 * norms)
        assert bool((moved <= 1 + 1e-9).all())
        largest = max(largest, float(moved.max()))
    assert largest > 0.99, "two opposite long records reach the bound"


def test_d10_with_the_same_noise_neighbors_differ_by_the_bound_at_most() -> None:
    config = DIFF2Config(clip_norm=0.3, server_lr=1.0, noise_source="stream", restart_period=1)
    for key in range(6):
        worlds = neighbors(key)
        own, last = worlds[0].shards, worlds[1].shards
        inputs, targets = own.inputs.clone(), own.targets.clone()
        inputs[:RECORDS], targets[:RECORDS] = last.inputs[:RECORDS], last.targets[:RECORDS]
        one, other = worlds[0], World(replace(own, inputs=inputs, targets=targets))
        xs = [states_of(config, 1, world=w, seed=1)[0][-1].x for w in (one, other)]
        assert float((xs[0] - xs[1]).norm()) <= 2 * 0.3 / (RECORDS * P) * (1 + 1e-9)


def test_unequal_clients_weigh_by_the_smallest_one() -> None:
    sizes = torch.tensor([9, 3, 5, 7])
    config = DIFF2Config(epsilon=50.0, restart_period=1, noise_source="stream")
    states, _ = states_of(config, 2, world=World(make_shards(sizes)))
    assert states[-1].records == 3
    assert states[-1].privacy.noise_std == pytest.approx(states[-1].multipliers.restart * 2 / 12)


@pytest.mark.parametrize(
    ("unit", "adjacency", "factor"),
    [
        ("record", "replace_one", 2 / (RECORDS * P)),
        ("record", "zero_out", 1 / (RECORDS * P)),
        ("client", "replace_one", 2 / P),
        ("client", "zero_out", 1 / P),
    ],
)
def test_noise_follows_unit_and_adjacency(unit: Any, adjacency: Any, factor: float) -> None:
    config = DIFF2Config(
        unit=unit, adjacency=adjacency, clip_norm=0.5, epsilon=1e4, noise_source="stream"
    )
    states, _ = states_of(config, 1)
    std = states[-1].multipliers.restart * 0.5 * factor
    assert states[-1].privacy.noise_std == pytest.approx(std)


def test_clients_share_the_noise_so_that_the_mean_has_as_much() -> None:
    central = DIFF2Config(noise_source="stream", restart_period=1, server_lr=0.0)
    shared = replace(central, noise="clients")
    clean = World().gradient(X0)
    config = {"clip_norm": 1e6, "epsilon": 1e3}
    z = []
    for seed in range(25):
        states, _ = states_of(replace(shared, **config), 1, seed=seed)  # type: ignore[arg-type]
        z.append((states[-1].gradient - clean) / states[-1].privacy.noise_std)
    plain, _ = states_of(replace(central, **config), 1)  # type: ignore[arg-type]
    assert states[-1].privacy.noise_std == plain[-1].privacy.noise_std
    flat = torch.stack(z).flatten()
    assert abs(float(flat.std()) - 1) < 5 / (2 * len(flat)) ** 0.5


def faulty_run(config: DIFF2Config, drop: float) -> Outcome:
    engine = InProcessEngine(World(), make_rules())
    return run_rounds(
        DIFF2(config),
        Faulty(engine, FaultConfig(drop=drop), seed=4),
        OpenProblem(initial_x=X0, asks_clients=False),
        RunSettings(num_clients=P, num_rounds=12),
    )


def test_missing_clients_mean_more_noise_at_the_server_and_spoilt_rounds_where_clients_add_it() -> (
    None
):
    config = DIFF2Config(
        noise_source="stream", restart_period=1, server_lr=0.001, max_failed_rounds=12
    )
    outcome = faulty_run(config, 0.3)
    rounds = outcome.records[1:]
    z = outcome.state.multipliers.restart * 2 / RECORDS
    released = [r for before, r in pairwise(rounds) if r.epsilon > before.epsilon]  # type: ignore[operator]
    assert len({len(r.failures) for r in released}) > 1
    for record in released:
        assert record.noise_std == pytest.approx(z / (P - len(record.failures)))
    shared = faulty_run(replace(config, noise="clients"), 0.3)
    spoilt = [r for r in shared.records[1:] if r.failures]
    assert spoilt
    costs = {r.round_index: r.epsilon for r in shared.records}
    assert all(costs[r.round_index] == costs[r.round_index - 1] for r in spoilt), "nothing spent"
    assert shared.stop == "rounds"


def test_a_run_stops_before_the_release_that_exceeds_the_budget(tmp_path: Path) -> None:
    """Noise for ten rounds, a run of fifteen: it ends after ten, with what was spent."""
    settings = {
        "strategy.noise_multiplier": noise_for(3.0, 1e-5) * math.sqrt(10),
        "strategy.restart_period": 1,
    }
    made = make_experiment("regression", "diff2", num_rounds=15, settings=settings)
    result = simulate(made, out=tmp_path)
    assert result.stops == ["privacy"]
    assert result.records[-1].round_index == 10
    assert result.summary()["epsilon"] == pytest.approx(3.0, rel=1e-5)
    assert result.summary()["gradients"] == 100, "nothing was asked beyond"
    again = simulate(made, out=tmp_path, resume=True)
    assert again.records[-1].round_index == 10


def test_noise_that_cannot_be_repeated_is_saved_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []

    def count(_: object, checkpoint: Checkpoint) -> None:
        saved.append(checkpoint.facts["num_records"])

    monkeypatch.setattr("fedzo.records.checkpoint.CheckpointWriter.save", count)
    settings = {"strategy.noise_source": "os"}
    simulate(
        make_experiment("regression", "diff2", num_rounds=4, num_clients=3, settings=settings),
        out=tmp_path,
    )
    assert saved[:5] == [1, 2, 3, 4, 5], "a round that is made again would be released twice"


def test_going_on_for_more_rounds_does_not_calibrate_anew() -> None:
    snapshots: list[Snapshot] = []
    strategy = DIFF2(DIFF2Config(noise_source="stream"))
    engine = InProcessEngine(World(), make_rules())
    problem = OpenProblem(initial_x=X0, asks_clients=False)
    first = RunSettings(num_clients=P, num_rounds=6)
    run_rounds(strategy, engine, problem, first, callbacks=[snapshots.append])
    longer = run_rounds(
        strategy, engine, problem, replace(first, num_rounds=9), resume=snapshots[-1]
    )
    assert longer.stop == "privacy"
    assert longer.state.privacy.epsilon == pytest.approx(3.0, rel=1e-5)


def test_robust_and_private_noise_is_for_fewer_averaged() -> None:
    config = DIFF2Config(
        noise_source="stream", restart_period=1, aggregator="trimmed_mean", num_byzantine=1
    )
    states, _ = states_of(config, 2)
    std = states[-1].multipliers.restart * 2 / (RECORDS * (P - 2))
    assert states[-1].privacy.noise_std == pytest.approx(std)
    for text in ("krum", "geometric_median", "nnm | trimmed_mean"):
        with pytest.raises(ConfigError, match="no known bound on its sensitivity"):
            DIFF2Config(aggregator=text, num_byzantine=1)


def test_the_bound_of_the_trimmed_mean_holds_and_is_reached() -> None:
    largest = 0.0
    for key in range(60):
        random = stream(13, "trimmed", key)
        vectors = torch.from_numpy(random.standard_normal((7, 3))) * float(random.uniform(0.01, 1))
        other = vectors.clone()
        other[0] = torch.from_numpy(random.standard_normal(3))
        vectors[0] /= max(1.0, float(vectors[0].norm()))
        other[0] /= max(1.0, float(other[0].norm()))
        moved = float((other[0] - vectors[0]).norm())
        for f, rule in ((1, trimmed_mean), (2, trimmed_mean), (3, median)):
            change = rule(vectors, num_byzantine=f) - rule(other, num_byzantine=f)
            share = float(change.norm()) * (7 - 2 * f) / moved
            assert share <= 1 + 1e-9
            largest = max(largest, share)
    assert largest > 0.5
    flat = torch.tensor([[-9.0], [-8.0], [-7.0], [0.0], [7.0], [8.0], [9.0]])
    moved_far = flat.clone()
    moved_far[3] = 5.0
    change = trimmed_mean(flat, num_byzantine=2) - trimmed_mean(moved_far, num_byzantine=2)
    assert abs(float(change)) == pytest.approx(5 / 3)


@pytest.mark.parametrize("estimator", ["forward", "central"])
def test_zeroth_order_with_all_directions_is_gradient_descent(estimator: Any) -> None:
    config = DIFF2Config(**FREE, server_lr=0.05, restart_period=4)
    states, outcome = states_of(
        config, 8, gradient="zeroth_order", num_directions=D, mu=1e-6, estimator=estimator
    )
    torch.testing.assert_close(states[-1].x, descent(8, 0.05), rtol=1e-4, atol=1e-5)
    q = D + 1 if estimator == "forward" else 2 * D
    assert outcome.records[-1].queries == P * q * (2 + 6 * 2), "changes ask at two points"
    assert outcome.records[-1].examples == RECORDS * outcome.records[-1].queries


def test_zeroth_order_noise_is_made_for_the_slopes() -> None:
    """Noise of m slopes: sqrt(d / m) times a vector of m numbers along orthonormal directions."""
    config = DIFF2Config(noise_source="stream", restart_period=1, clip_norm=1e6, server_lr=0.0)
    m, z = 5, []
    for seed in range(20):
        noisy, _ = states_of(config, 1, seed=seed, gradient="zeroth_order", num_directions=m)
        clean, _ = states_of(
            replace(config, epsilon=math.inf), 1, seed=seed, gradient="zeroth_order",
            num_directions=m,
        )  # fmt: skip
        noise = noisy[-1].gradient - clean[-1].gradient
        z.append(float(noise.norm()) / noisy[-1].privacy.noise_std / (D / m) ** 0.5)
    mean_square = sum(v * v for v in z) / len(z)
    assert abs(mean_square - m) < 5 * (2 * m / len(z)) ** 0.5


def test_neighbors_of_slopes_never_exceed_the_bound() -> None:
    """Clipped rows of slopes are vectors in R^m: the bound is the same, whatever they measure."""
    for key in range(300):
        random = stream(14, "slopes", key)
        rows = torch.from_numpy(random.standard_normal((6, 4))) * float(random.uniform(0.1, 10))
        other = rows.clone()
        other[0] = -100 * rows[0] if key % 2 else torch.from_numpy(random.standard_normal(4))
        told = [clip_rows(r, 0.7).sums.mean(dim=0) for r in (rows, other)]
        assert float((told[0] - told[1]).norm()) <= 2 * 0.7 / 6 * (1 + 1e-9)


def test_private_walks_are_bvr_l_sgd_without_noise() -> None:
    """One client, all its records a step: K steps of gradient descent a round."""
    world = World(make_shards(torch.tensor([RECORDS])))
    config = DIFF2Config(
        **{**FREE, "local_clip": 1e6},
        routine="bvr_l_sgd",
        local_steps=3,
        local_lr=0.05,
        local_batch=RECORDS,
    )
    states, _ = states_of(config, 5, world=world)
    torch.testing.assert_close(states[-1].x, descent(15, 0.05, world), rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("few_orders")
@pytest.mark.parametrize(("batch", "counts"), [(1, True), (4, True), (8, False), (9, True)])
def test_private_walks_keep_the_budget_and_take_turns(batch: int, counts: bool) -> None:
    config = DIFF2Config(
        routine="bvr_l_sgd", local_steps=3, local_batch=batch, noise_source="stream", local_lr=0.001
    )
    states, outcome = states_of(config, 6)
    assert outcome.records[-1].epsilon == pytest.approx(3.0, rel=1e-3)
    assert outcome.records[-1].epsilon <= 3.0 * (1 + 1e-6)  # type: ignore[operator]
    assert states[-1].turns == 6
    multipliers, rows = states[-1].multipliers, states[-1].privacy.ledger.rows
    assert multipliers.samples_count is counts, "as such, or as if all contributed"
    [local] = [row[1:].tolist() for row in rows if row[0] == multipliers.local]
    drawn = [batch, 9] if counts and batch < 9 else [0, 0]
    assert local == [4, *drawn], "two turns of the busiest client, two steps each"
    all_of_them = states_of(replace(config, local_batch=9), 6)[0][-1].multipliers
    least = min(multipliers.restart / all_of_them.restart, multipliers.local / all_of_them.local)
    assert least <= 1 + 1e-4, "samples cost more nowhere, or less somewhere"
    with pytest.raises(ConfigError, match="exceeds the 9 records"):
        states_of(replace(config, local_batch=10), 2)


def test_a_walk_that_fails_costs_what_was_released_and_moves_nothing() -> None:
    class Deaf(InProcessEngine):
        def perform(self, exchanges: Any, *, timeout_s: float) -> Any:
            if exchanges[0].kind != "train.clipped_walk":
                return super().perform(exchanges, timeout_s=timeout_s)
            return [Replies(client_ids=[], failures=dict.fromkeys(exchanges[0].client_ids, "gone"))]

    config = DIFF2Config(
        routine="bvr_l_sgd",
        local_steps=3,
        local_batch=4,
        noise_source="stream",
        epsilon=math.inf,
        noise_multiplier=9.0,
        max_failed_rounds=0,
    )
    outcome = run_rounds(
        DIFF2(config),
        Deaf(World(), make_rules()),
        OpenProblem(initial_x=X0, asks_clients=False),
        RunSettings(num_clients=P, num_rounds=4),
    )
    assert torch.equal(outcome.state.x, X0)
    costs = [record.epsilon for record in outcome.records]
    assert costs == sorted(set(costs)), "every round released a gradient"  # type: ignore[type-var]


def test_noise_by_hand_without_a_budget_is_noise_and_is_counted() -> None:
    config = DIFF2Config(epsilon=math.inf, noise_multiplier=9.0, noise_source="stream")
    _, outcome = states_of(config, 3)
    assert outcome.records[-1].noise_std > 0  # type: ignore[operator]
    assert outcome.records[-1].epsilon == Ledger.empty().after(9.0, 3).epsilon(1e-5)


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0 must be positive"),
        ({"delta": 1.0}, "delta=1.0 must be above 0 and below 1"),
        ({"clip_norm": math.inf}, "clip_norm=inf must be positive, and finite unless epsilon=inf"),
        ({"restart_share": 1.0}, "restart_share=1.0 must be above 0 and below 1"),
        ({"participation": 0.5}, "participation=0.5 must be 1"),
        ({"calibration": "paper", "unit": "client"}, "calibration=paper is for unit=record"),
        ({"routine": "bvr_l_sgd", "adjacency": "zero_out"}, "routine=bvr_l_sgd has no account"),
        (
            {"noise": "clients", "aggregator": "median", "num_byzantine": 1},
            "noise=clients adds up in the mean alone",
        ),
    ],
)
def test_settings_without_sense_are_refused(setting: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        DIFF2Config(**setting)


def test_forms_that_need_gradients_or_records_say_so() -> None:
    for setting in ({"memory": "filter"}, {"routine": "bvr_l_sgd"}):
        with pytest.raises(ConfigError, match=r"needs client\.gradient=exact"):
            DIFF2(DIFF2Config(**setting), client=ClippedConfig(gradient="zeroth_order"))  # type: ignore[arg-type]
    made = make_experiment("quadratic", "diff2", settings={"strategy.unit": "record"}, num_rounds=2)
    with pytest.raises(ConfigError, match=r"strategy\.unit=record needs objectives over records"):
        simulate(made)
    with pytest.raises(ConfigError, match=r"strategy\.epsilon is refused: FZooS has no private"):
        make_experiment("quadratic", "fzoos", settings={"strategy.epsilon": 3.0})


def test_real_clients_draw_noise_that_no_seed_repeats() -> None:
    config = DIFF2Config(epsilon=1e3)
    assert config.noise_source == "os", "the default is the safe one"
    first, second = (states_of(config, 1)[0][-1].x for _ in range(2))
    assert not torch.equal(first, second)
    assert make_experiment("regression", "diff2").settings["strategy.noise_source"] == "stream"
    deployed = make_experiment("regression", "diff2", engine="superlink").settings
    assert deployed["strategy.noise_source"] == "os"
    assert not deployed["strategy.report_shortened"]
