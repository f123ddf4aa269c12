"""Seed and scalar in waves: the formulas, what is told, the same bits however computed, resume."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedzo.errors import ConfigError, RunError
from fedzo.estimation.replay import Replay
from fedzo.objectives.objective import ModuleObjective, flatten_parameters
from fedzo.protocol.wave import Landed, Wave
from scenarios import federate
from scenarios.problems.custom import CustomScenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate
from scenarios.runs.stored import load_run
from strategies.core.rounds import RoundPlan, undone
from strategies.shared.seed_scalar_waves import (
    FedBuffSeedScalar,
    FedBuffSeedScalarConfig,
    FedBuffSeedScalarState,
)
from tests.strategies.shared.test_seed_scalar import net, sharing

M, K, CLIENTS = 2, 2, 8
FLEET = {"fleet.speed_spread": 1.0, "fleet.jitter": 0.5}
SETTINGS: dict[str, Any] = {
    "client.num_directions": M,
    "client.mu": 0.01,
    "strategy.local_steps": K,
    "strategy.server_lr": 0.2,
    "strategy.participation": 0.5,
}
NAME = "fedbuff_seed_scalar"


def run(strategy: str, make: Any = None, *, rounds: int = 8, **more: Any) -> RunResult:
    told = more.pop("settings", {})
    settings = {**SETTINGS, **({} if told.get("fleet.preset") == "none" else FLEET), **told}
    make = make or sharing(net())
    usual = {"num_rounds": rounds, "strategy": strategy, "num_clients": CLIENTS}
    return federate(make, settings=settings, **{**usual, **more})


def same(one: RunResult, other: RunResult) -> None:
    assert torch.equal(one.solutions[0], other.solutions[0])
    assert [r.virtual for r in one.records] == [r.virtual for r in other.records]
    assert [r.value for r in one.records] == [r.value for r in other.records]


def moved(result: RunResult) -> Tensor:
    module = net()
    result.replay_(module)
    return flatten_parameters(module)


@pytest.mark.more
def test_a_buffer_for_all_is_seed_scalar() -> None:
    clock = {"fleet.preset": "fedscale", "fleet.query_s": 0.05}
    waiting = {"strategy.refill": "step", **clock}
    one, other = run(NAME, settings=waiting), run("seed_scalar", settings=clock)
    assert torch.equal(moved(one), moved(other))
    assert [r.value for r in one.records] == [r.value for r in other.records]
    assert one.queries == other.queries


def test_one_client_at_a_time_is_seed_scalar() -> None:
    clock = {"fleet.preset": "mobile", "fleet.query_s": 0.05}
    one = run(NAME, settings={"strategy.buffer": 1}, num_clients=1)
    other = run("seed_scalar", settings=clock, num_clients=1)
    assert torch.equal(moved(one), moved(other))


@pytest.mark.more
def test_it_learns_and_nothing_depends_on_what_is_computed_together() -> None:
    module = net()
    usual = run(NAME, sharing(module), rounds=12)
    assert usual.final_value is not None
    assert usual.initial_value is not None
    assert usual.final_value < 0.95 * usual.initial_value
    assert torch.equal(flatten_parameters(module), moved(usual))
    same(usual, run(NAME, rounds=12, settings={"engine.chunk_size": 1}))
    same(usual, run(NAME, lambda client: sharing(net())(client), rounds=12))


def test_a_run_goes_on_in_mid_wave_at_the_same_bits(tmp_path: Path) -> None:
    def one(rounds: int, **more: Any) -> RunResult:
        made = make_experiment(
            "custom", NAME, num_rounds=rounds, num_clients=CLIENTS,
            settings={**SETTINGS, **FLEET, "fleet.drop_out": 0.1},
        )  # fmt: skip
        config = made.config("scenario")
        scenario = CustomScenario(
            config, num_clients=CLIENTS, seed=0, make_objective=sharing(net())
        )
        return simulate(made, scenario=scenario, **more)

    whole = one(5)
    one(2, out=tmp_path / "run")
    same(whole, one(5, out=tmp_path / "run", resume=True))
    stored = load_run(tmp_path / "run").result
    assert torch.equal(stored.solutions[0], whole.solutions[0])
    best = net()
    stored.load_into(best, best=True)
    assert not torch.equal(flatten_parameters(best), flatten_parameters(net()))


def test_the_budget_is_kept() -> None:
    result = run(NAME, rounds=99, query_budget=400)
    assert 300 < result.queries <= 400
    assert list(result.stops) == ["budget"]


def state_of(strategy: Any, log: Tensor, lengths: dict[int, int], told: list[int]) -> Any:
    fresh = strategy.init(torch.zeros(37), len(told))
    assert isinstance(fresh, FedBuffSeedScalarState)
    named = {f: getattr(fresh, f) for f in ("dim", "settings")}
    return FedBuffSeedScalarState(
        **named,
        log=log,
        told=torch.tensor(told),
        versions=torch.tensor([*lengths], dtype=torch.int64),
        lengths=torch.tensor([*lengths.values()], dtype=torch.int64),
    )


def stepped(
    strategy: Any, state: Any, slopes: Tensor, ages: list[int], clients: list[int], now: int = 5
) -> Any:
    plan = RoundPlan(round_index=now, cohort=[0, 1], num_clients=4)
    asking = strategy.round(state, plan)
    asked = next(asking)
    assert isinstance(asked, Wave)
    landed = Landed(
        clients=clients, staleness=torch.tensor(ages), tensors={"slopes": slopes},
        counts={}, oldest=4, failures={3: "lost"},
    )  # fmt: skip
    with pytest.raises(StopIteration) as end:
        asking.send(landed)
    return asked, end.value.value


ROWS = torch.tensor([[1.0, 0.5], [3.0, 0.25], [1.0, 1.0]])


def test_late_slopes_go_along_the_directions_of_their_own_step() -> None:
    strategy = FedBuffSeedScalar(FedBuffSeedScalarConfig())
    state = state_of(strategy, ROWS, {3: 1, 4: 2}, [2, 0, 1, 3])
    slopes = torch.tensor([[4.0], [6.0], [8.0]], dtype=torch.float64)
    asked, after = stepped(strategy, state, slopes, [0, 2, 2], [0, 1, 2])
    groups = [(q.first, len(q.news), ids) for q, ids in asked.sort([0, 1, 2, 3])]
    assert groups == [(0, 3, [1]), (1, 2, [2]), (2, 1, [0]), (3, 0, [3])]
    old = 14 / 3 * 3**-0.5
    expected = torch.tensor([[2.0, -1e-3 * old], [4.0, -1e-3 * 4 / 3]])
    torch.testing.assert_close(after.log[3:], expected)
    assert after.told.tolist() == [3, 1, 1, 0]
    assert after.versions.tolist() == [4, 5]
    assert after.lengths.tolist() == [2, 3]
    _, failed = stepped(strategy, state, slopes, [0, 2, 2], [0, 1, 3])
    assert failed.told.tolist() == [3, 1, 1, 0]  # 3 has answered, begun anew, and failed


def test_a_log_is_full_before_numbers_of_steps_are_no_longer_exact() -> None:
    strategy = FedBuffSeedScalar(FedBuffSeedScalarConfig())
    state = state_of(strategy, ROWS, {3: 1, 4: 2}, [0, 0, 0, 0])
    with pytest.raises(RunError, match="16,777,216 steps"):
        stepped(strategy, state, torch.ones(1, 1), [0], [0], now=2**24 + 1)


@pytest.mark.slow
@pytest.mark.xdist_group("flower")
def test_nodes_that_judge_do_not_forget_what_they_are_at_work_on() -> None:
    """Flower hands a node's memory to two messages at once, and keeps what the last one left."""
    result = run(NAME, objective, rounds=20, engine="flower", settings={"fleet.preset": "none"})
    assert not any(record.failures for record in result.records)


def test_who_takes_part_is_told_the_news_alone() -> None:
    result = run(NAME, rounds=30, settings={"strategy.evaluate_every": 0})
    sent = [one.floats_down - before.floats_down for before, one in pairwise(result.records)]
    whole = len(result.solutions[0]) * (1 + M)
    assert max(sent[:-1]) < 4 * whole
    assert sum(sent[:-1]) < 0.7 * sum(4 * whole * i / 30 for i in range(30))


def test_a_module_that_is_further_on_is_asked_back() -> None:
    module, other = net(torch.float64), net(torch.float64)
    replay = Replay(seed=0, num_directions=1)
    replay.bring_(module, ROWS)
    replay.bring_(other, ROWS[:1])
    back = replay.back_to(module, ROWS[:1])
    x = flatten_parameters(module)
    for key, number in back:
        x = x + number * key.draw(0, len(x), dtype=torch.float64)
    torch.testing.assert_close(x, flatten_parameters(other))
    assert replay.back_to(other, ROWS) == []
    with pytest.raises(ConfigError, match="moved by another run"):
        replay.back_to(module, ROWS[1:])


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_on_ray_on_a_clock_and_by_arrival() -> None:
    ray = {"engine.num_actors": 2, "engine.cluster_cpus": 2}
    same(run(NAME, objective), run(NAME, objective, engine="ray", settings=ray))
    found = run(NAME, objective, rounds=30, engine="ray",
                settings={**ray, "fleet.preset": "none"})  # fmt: skip
    assert found.final_value is not None
    assert found.initial_value is not None
    assert found.final_value < found.initial_value


def objective(client: int) -> ModuleObjective:
    made: ModuleObjective = sharing(net())(client)
    assert isinstance(made.module, nn.Module)
    return made


def test_after_a_spoilt_wave_those_who_failed_in_it_are_told_all() -> None:
    strategy = FedBuffSeedScalar(FedBuffSeedScalarConfig())
    state = state_of(strategy, ROWS, {}, [4, 7, 3, 5])
    plan = RoundPlan(round_index=8, num_clients=4, cohort=[0, 2])
    assert undone(state, plan, {3: "it was away"}).told.tolist() == [0, 7, 0, 0]
    assert state.told.tolist() == [4, 7, 3, 5]
