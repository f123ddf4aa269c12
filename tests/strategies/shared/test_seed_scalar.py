"""Seed and scalar in place: trajectory, news, replay, resume, engines, and what is refused."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from worlds import federate_on_nodes

from clients import make_rules
from fedzo.config import Scalar
from fedzo.errors import ConfigError, RunError
from fedzo.estimation.keys import Key
from fedzo.objectives.objective import (
    CallableObjective,
    ModuleObjective,
    flatten_parameters,
    restore_parameters,
)
from fedzo.objectives.problem import PlacedProblem
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.questions.in_place import InPlaceConfig, SlopesInPlace
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment, serve
from scenarios import federate, simulate
from scenarios.problems.custom import CustomScenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.run_result import RunResult
from strategies.core.driver import RunSettings, run_rounds
from strategies.core.outcome import Snapshot
from strategies.core.rounds import RoundPlan
from strategies.shared.seed_scalar import SeedScalar, SeedScalarConfig, SeedScalarState

LR, MU, M, ROUNDS = 0.02, 0.01, 2, 3
SETTINGS: dict[str, Scalar] = {
    "client.num_directions": M,
    "client.mu": MU,
    "strategy.server_lr": LR,
}


def net(kind: torch.dtype = torch.float32) -> nn.Module:
    parts = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).to(kind)
    restore_parameters(parts, torch.linspace(-1, 1, flatten_parameters(parts).numel()).sin())
    return parts


def sharing(module: nn.Module) -> Callable[[int], ModuleObjective]:
    """Return clients with data of their own and one module."""
    kind = next(module.parameters()).dtype

    def make(client: int) -> ModuleObjective:
        inputs = torch.linspace(-2, 2, 48, dtype=kind).reshape(12, 4).cos() + client
        return ModuleObjective(
            module, nn.functional.cross_entropy, inputs, inputs[:, 0].gt(client).long()
        )

    return make


def run(make: Any, num_clients: int = 3, **more: Any) -> RunResult:
    settings = {**SETTINGS, **more.pop("settings", {})}
    told = {"num_rounds": ROUNDS, "strategy": "mezo", **more}
    return federate(make, num_clients=num_clients, settings=settings, **told)


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
def test_the_trajectory_is_that_of_the_formula(law: Any) -> None:
    module = net(torch.float64)
    result = run(sharing(module), settings={"client.directions": law})
    make = sharing(net(torch.float64))
    x = flatten_parameters(make(0).module)
    for step in range(ROUNDS):
        keys = [
            Key(seed=0, parts=("in place", 0), law=law, direction=step * M + i) for i in range(M)
        ]
        g = torch.zeros_like(x)
        for u in (key.draw(0, len(x), dtype=torch.float64) for key in keys):
            ends = [torch.stack([make(c).value(x + s * MU * u) for c in range(3)]) for s in (1, -1)]
            g += (ends[0] - ends[1]).mean() / (2 * MU) * u / M
        x = x - LR * g
    torch.testing.assert_close(flatten_parameters(module), x, rtol=1e-5, atol=1e-6)
    assert result.final_value is not None
    mean = torch.stack([make(c).value(x) for c in range(3)]).mean()
    assert result.final_value == pytest.approx(float(mean), rel=1e-5)


WALKING: dict[str, Scalar] = {
    "strategy.local_steps": 3,
    "strategy.server_lr": 0.3,
    "client.directions": "gaussian",
}


@pytest.mark.parametrize("candidates", [0, 4])
def test_it_is_dense_fedzo_along_the_same_directions(candidates: int) -> None:
    """Every client walks by itself as a vector, and the server takes the mean of where they end."""
    module = net(torch.float64)
    settings = {**WALKING, "client.candidates": candidates}
    result = run(sharing(module), strategy="seed_scalar", settings=settings)
    make, replay = sharing(net(torch.float64)), result.experiment.config("client")
    assert isinstance(replay, InPlaceConfig)
    x = flatten_parameters(make(0).module)
    for round_index in range(ROUNDS):
        ends = []
        for client in (make(c) for c in range(3)):
            at = x.clone()
            for step in range(3):
                keys = replay.replay(0, 0).keys(round_index * 3 + step)
                rows = [key.draw(0, len(x), dtype=torch.float64) for key in keys]
                slopes = [
                    (client.value(at + MU * u) - client.value(at - MU * u)) / (2 * MU) for u in rows
                ]
                at = at - 0.3 / M * sum(s * u for s, u in zip(slopes, rows, strict=True))
            ends.append(at)
        x = torch.stack(ends).mean(0)
    found = flatten_parameters(module)
    assert float((found - x).abs().max()) < 1e-6
    assert result.queries == 3 * (ROUNDS * 3 * 2 * M + ROUNDS + 1)


def test_local_steps_of_another_rate() -> None:
    slow = run(sharing(net()), strategy="seed_scalar", settings=WALKING)
    other = {**WALKING, "strategy.local_lr": 0.01}
    assert not torch.equal(
        run(sharing(net()), strategy="seed_scalar", settings=other).solutions[0], slow.solutions[0]
    )
    with pytest.raises(ConfigError, match="local_lr"):
        run(sharing(net()), strategy="seed_scalar", settings={"strategy.local_lr": 0.01})


def test_who_takes_part_is_told_the_news_alone() -> None:
    result = run(sharing(net()), num_rounds=6, strategy="seed_scalar", settings=WALKING)
    sent = [one.floats_down - before.floats_down for before, one in pairwise(result.records)]
    judged, asked = 3 * 6, 3 * 6  # three clients, K m numbers of this round, and of the one before
    assert sent == [judged] + [judged + asked] * 5


@pytest.mark.more
def test_who_comes_back_is_told_what_was_missed() -> None:
    every = {**WALKING, "strategy.participation": 0.4, "strategy.evaluate_every": 0}
    result = run(sharing(net()), 5, num_rounds=12, strategy="seed_scalar", settings=every)
    apart = run(
        lambda client: sharing(net())(client), 5, num_rounds=12, strategy="seed_scalar",
        settings=every,
    )  # fmt: skip
    assert torch.equal(result.solutions[0], apart.solutions[0])
    (record,) = (one for one in result.records if one.round_index == 12)
    judging = 5 * 12 * 6  # all clients, once, all that somebody may have missed
    whole = sum(2 * 6 * done for done in range(12))  # two clients, the log so far, every round
    assert record.floats_down - judging < whole / 2


def test_a_client_without_memory_fails_once_and_is_told_all() -> None:
    question = SlopesInPlace(news=torch.ones(2), first=4, settings=InPlaceConfig())
    environment = FunctionEnvironment(lambda client: sharing(net())(client))
    exchange = Exchange(question=question, client_ids=[0, 1])
    held = {"in place log": torch.zeros(5)}
    replies, after = serve(exchange, environment, make_rules(), [held, {}])
    assert list(replies.client_ids) == [0]
    assert "remembers 0 entries of the log" in replies.failures[1]
    assert torch.equal(after[0]["in place log"], torch.tensor([0.0, 0, 0, 0, 1, 1]))
    state = SeedScalarState(
        dim=37, log=torch.zeros(6), settings=InPlaceConfig(), told=torch.tensor([4, 4])
    )
    plan = RoundPlan(round_index=1, cohort=[0, 1], num_clients=2)
    asking = SeedScalar(SeedScalarConfig()).round(state, plan)
    [asked] = next(asking)
    assert asked.client_ids == [0, 1]
    with pytest.raises(StopIteration) as end:
        asking.send([replies])
    assert end.value.value.told.tolist() == [6, 0]


def test_few_candidates_span_few_dimensions() -> None:
    module, start = net(torch.float64), flatten_parameters(net(torch.float64))
    settings = {"client.candidates": 2, "strategy.server_lr": 0.3, "client.num_directions": 3}
    run(sharing(module), num_rounds=10, strategy="seed_scalar", settings=settings)
    both = [
        Key(seed=0, parts=("in place", 0), direction=i).draw(0, 37, dtype=torch.float64)
        for i in range(2)
    ]
    moved, basis = flatten_parameters(module) - start, torch.stack(both, dim=1)
    weights = torch.linalg.lstsq(basis, moved.unsqueeze(1)).solution
    assert torch.allclose(basis @ weights, moved.unsqueeze(1), atol=1e-5)
    assert float(moved.norm()) > 0.1


@pytest.mark.more
def test_two_liars_of_ten_under_the_median() -> None:
    def final(**more: Scalar) -> float:
        settings = {"strategy.server_lr": 0.3, "strategy.evaluate_every": 0, **more}
        result = run(sharing(net()), 10, num_rounds=8, strategy="seed_scalar", settings=settings)
        assert result.final_value is not None
        assert result.initial_value is not None
        return result.initial_value - result.final_value

    robust: dict[str, Scalar] = {"strategy.aggregator": "median", "strategy.num_byzantine": 2}
    lying: dict[str, Scalar] = {
        "byzantine.num_clients": 2,
        "byzantine.attack": "foe",
        "byzantine.scale": 10.0,
    }
    assert final(**robust, **lying) > 0.75 * final()
    assert final(**lying) < 0.5 * final()


def test_it_learns_and_counts() -> None:
    result = run(sharing(net()), num_rounds=12, settings={"strategy.server_lr": 0.4})
    assert result.final_value is not None
    assert result.initial_value is not None
    assert result.final_value < 0.8 * result.initial_value
    assert result.queries == 3 * (12 * 2 * M + 13)
    assert result.records[1].floats_up < 50 < flatten_parameters(net()).numel() * 3


def test_a_log_leads_a_fresh_module_to_the_same_bits() -> None:
    module, other = net(), net()
    result = run(sharing(module))
    assert not torch.equal(flatten_parameters(module), flatten_parameters(other))
    result.replay_(other)
    assert torch.equal(flatten_parameters(module), flatten_parameters(other))
    with pytest.raises(RunError, match="in the clients' modules and no vector"):
        _ = result.x


def test_modules_of_their_own_go_the_same_way() -> None:
    shared = run(sharing(net()))
    apart = run(lambda client: sharing(net())(client))
    assert torch.equal(shared.solutions[0], apart.solutions[0])


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    experiment = make_experiment(
        "custom", "mezo", num_rounds=ROUNDS, num_clients=3, settings=SETTINGS
    )

    def scenario() -> CustomScenario:
        config = experiment.config("scenario")
        return CustomScenario(config, num_clients=3, seed=0, make_objective=sharing(net()))

    whole = simulate(experiment, scenario=scenario())

    def interrupt(snapshot: Snapshot) -> None:
        if snapshot.record.round_index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, scenario=scenario(), out=tmp_path / "run", callbacks=[interrupt])
    after = simulate(experiment, scenario=scenario(), out=tmp_path / "run", resume=True)
    assert torch.equal(after.solutions[0], whole.solutions[0])
    assert after.final_value == whole.final_value


def test_through_messages_it_is_the_same() -> None:
    whole = run(sharing(net()))
    wired = run(sharing(net()), settings={"engine.strict": True})
    assert torch.equal(wired.solutions[0], whole.solutions[0])
    sent = federate_on_nodes(
        lambda c: sharing(net())(c), "mezo", num_clients=3, num_rounds=ROUNDS, settings=SETTINGS
    )
    assert torch.equal(sent.solutions[0], whole.solutions[0])


def test_minibatches_noise_and_half_precision() -> None:
    batches = run(sharing(net()), settings={"client.batch_size": 4})
    assert not torch.equal(batches.solutions[0], run(sharing(net())).solutions[0])
    assert batches.records[1].examples == 36 + 3 * 2 * M * 4 + 36
    half = net(torch.bfloat16)
    before = flatten_parameters(half)
    result = run(sharing(half), settings={"client.mu": 0.05, "strategy.server_lr": 0.1})
    assert result.final_value is not None
    assert not torch.equal(before, flatten_parameters(half))


def test_the_median_withstands_a_liar() -> None:
    lied = {
        "byzantine.num_clients": 1,
        "byzantine.attack": "foe",
        "byzantine.scale": 50.0,
    }
    mean = run(sharing(net()), 5, num_rounds=3, settings=lied)
    robust = {**lied, "strategy.aggregator": "median", "strategy.num_byzantine": 1}
    median = run(sharing(net()), 5, num_rounds=3, settings=robust)
    assert median.final_value is not None
    assert mean.final_value is not None
    assert median.final_value < mean.final_value


def test_a_client_that_raises_fails_alone() -> None:
    def make(client: int) -> ModuleObjective:
        whole = sharing(net())(client)
        wrong = torch.arange(12) + 5 if client == 1 else whole.targets
        return ModuleObjective(whole.module, whole.loss, whole.inputs, wrong)

    result = run(make)
    assert list(result.last_records[0].failures) == [1]
    assert result.last_records[0].judges == 2


def test_what_is_refused() -> None:
    module = net()
    run(sharing(module))
    with pytest.raises(ConfigError, match=r"moved by another run \(seed 0, a log of 6\).*anew"):
        run(sharing(module), seed=1)
    for wrong, sentence in (
        (lambda _: CallableObjective(function=lambda x: float(x.sum()), dim=3), "is a module"),
        (lambda _: ModuleObjective(net(), nn.MSELoss(), *pair(), lower=-1, upper=1), "in no box"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            run(wrong)
    with pytest.raises(ConfigError, match="starts at its own parameters"):
        run(sharing(net()), initial_x=torch.zeros(37))
    with pytest.raises(ConfigError, match="'quadratic' has none; use --scenario custom"):
        simulate(make_experiment("quadratic", "mezo"))


def pair() -> tuple[Tensor, Tensor]:
    return torch.ones(2, 4), torch.ones(2, 2)


def test_modules_of_shapes_alone_are_refused() -> None:
    with torch.device("meta"):
        module = nn.Linear(4, 2)

    def make(client: int) -> ModuleObjective:
        inputs = torch.linspace(-2, 2, 48).reshape(12, 4) + client
        return ModuleObjective(module, nn.functional.cross_entropy, inputs, torch.arange(12) % 2)

    with pytest.raises(ConfigError, match="has shapes alone"):
        federate(make, num_clients=2, num_rounds=2, strategy="seed_scalar")


def test_a_client_without_memory_is_told_all_after_the_round_that_it_spoilt() -> None:
    class Forgetting(InProcessEngine):
        def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> Sequence[Replies]:
            if exchanges[0].moment.round_index == 3 and not forgotten:
                forgotten.append(True)
                states = dict(self.client_states())
                self.restore_client_states({**states, 1: {}})
            return super().perform(exchanges, timeout_s=timeout_s)

    forgotten: list[bool] = []
    make = sharing(net())
    done = run_rounds(
        SeedScalar(SeedScalarConfig(server_lr=LR, min_answers=2), client=InPlaceConfig(mu=MU)),
        Forgetting(FunctionEnvironment(make), make_rules()),
        PlacedProblem(dim=flatten_parameters(net()).numel()),
        RunSettings(num_clients=2, num_rounds=5),
    )
    assert "remembers 0 entries" in done.records[3].failures[1]
    assert not done.records[4].failures
    assert len(done.state.log) == 4
