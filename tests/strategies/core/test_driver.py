"""The driver: sampling, budgets, failures, evaluation, records, resume."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import make_rules
from clients.averaging.zeroth_order import ZerothOrderConfig
from fedzo.errors import RunError
from fedzo.objectives.objective import CallableObjective
from fedzo.objectives.problem import OpenProblem, Report
from fedzo.protocol.exchange import Exchange
from fedzo.protocol.questions import Judge, Values
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from strategies import (
    FedAvg,
    FedAvgConfig,
    Outcome,
    RoundConfig,
    RoundPlan,
    RoundStrategy,
    Snapshot,
    run_rounds,
)
from strategies.core.driver import RunSettings

D, N, M = 3, 4, 2
X0 = torch.ones(D, dtype=torch.float64)


class World:
    """Instrumented clients: every value asked of any of them is counted here."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.asked = dict.fromkeys(range(N), 0)
        self.broken = broken

    def make(self, client: int) -> CallableObjective:
        def value(x) -> float:  # type: ignore[no-untyped-def]
            self.asked[client] += 1
            if client in self.broken:
                raise OSError("offline")
            return float(((x - 0.1 * client) ** 2).sum())

        return CallableObjective(function=value, dim=D)

    def engine(self) -> InProcessEngine:
        return InProcessEngine(FunctionEnvironment(self.make), make_rules())


def strategy(**config: object) -> FedAvg:
    client = ZerothOrderConfig(num_directions=M, estimator="residual")
    return FedAvg(FedAvgConfig(local_steps=2, **config), client=client)  # type: ignore[arg-type]


PROBLEM = OpenProblem(initial_x=X0)


def go(world: World, config: dict[str, object], **limits: object) -> Outcome:
    chosen = RunSettings(**{"num_clients": N, "num_rounds": 5, **limits})  # type: ignore[arg-type]
    return run_rounds(strategy(**config), world.engine(), PROBLEM, chosen)


@settings(max_examples=2 * settings.default.max_examples)
@given(
    budget=st.integers(N, 150),
    share=st.sampled_from([0.3, 0.5, 1.0]),
    every=st.sampled_from([0, 1, 2]),
)
def test_every_query_is_counted_and_the_budget_is_never_exceeded(
    budget: int, share: float, every: int
) -> None:
    world = World()
    config = {"participation": share, "evaluate_every": every}
    outcome = go(world, config, query_budget=budget, num_rounds=9)
    last = outcome.records[-1]
    assert last.queries == sum(world.asked.values()) <= budget
    assert last.value is not None
    assert outcome.stop in ("budget", "rounds")
    by_client = dict.fromkeys(range(N), 0)
    for record in outcome.records:
        for client, queries in zip(record.clients, record.client_queries, strict=True):
            by_client[client] += queries
    assert by_client == world.asked


def test_what_was_sent_for_a_step_too_many_is_counted() -> None:
    """5 queries a client: one step of 2 x M = 4, then nothing; the last exchange was sent."""
    outcome = go(World(), {"evaluate_every": 0}, query_budget=N + 4 * N + N, num_rounds=9)
    assert outcome.stop == "budget"
    sent = outcome.records[-1].floats_down
    assert sent == (2 + 2) * N * D, "two evaluations, one round of steps, one in vain"


def test_without_a_budget_all_rounds_are_run() -> None:
    outcome = go(World(), {})
    assert outcome.stop == "rounds"
    assert [r.round_index for r in outcome.records] == [0, 1, 2, 3, 4, 5]
    assert outcome.records[-1].queries == 6 * N + 5 * N * 2 * M


def test_cohorts_are_sampled_by_seed_and_round() -> None:
    def cohorts(seed: int) -> list[tuple[int, ...]]:
        config = {"participation": 0.5, "evaluate_every": 0}
        return [r.clients for r in go(World(), config, seed=seed).records[1:-1]]

    assert cohorts(0) == cohorts(0)
    assert cohorts(0) != cohorts(1)
    assert all(len(set(c)) == 2 for c in cohorts(0))
    assert len(set(cohorts(0))) > 1


def test_a_lost_client_is_recorded_and_the_others_go_on() -> None:
    outcome = go(World(broken=(2,)), {})
    record = outcome.records[-1]
    assert record.failures == {2: "OSError: offline"}
    assert (record.clients_asked, record.clients_answered) == (N, N - 1)
    assert record.value is not None


def test_too_few_answers_end_the_run_with_the_reason() -> None:
    told = r"2 of 4 clients answered evaluate.*min_answers=3.*offline.*had asked 4 queries"
    with pytest.raises(RunError, match=told):
        go(World(broken=(0, 2)), {"min_answers": 3})


def test_evaluation_can_be_rare() -> None:
    values = [r.value for r in go(World(), {"evaluate_every": 2}).records]
    assert [v is not None for v in values] == [True, False, True, False, True, True]


@dataclass(frozen=True)
class FreeProblem:
    """A problem that the scenario can judge, solved below a level."""

    level: float
    initial_x: torch.Tensor = X0
    lower: float = -1.0
    upper: float = 1.0
    index: int = 3
    asks_clients: bool = False

    def report(self, x: torch.Tensor, values: torch.Tensor | None) -> Report:
        assert values is None
        value = float(x.square().sum())
        return Report(value, {"half": value / 2}, solved=value < self.level)


def test_free_evaluation_costs_nothing_and_can_end_the_run() -> None:
    world = World()
    limits = RunSettings(num_clients=N, num_rounds=500)
    outcome = run_rounds(strategy(local_lr=0.1), world.engine(), FreeProblem(2.0), limits)
    assert outcome.stop == "solved"
    assert len(outcome.records) < 500
    assert outcome.records[-1].metrics["half"] < 1.0
    assert {r.problem for r in outcome.records} == {3}
    assert outcome.records[-1].queries == sum(world.asked.values())


def test_a_callback_can_end_the_run() -> None:
    seen: list[int] = []

    def stop(snapshot: Snapshot) -> bool:
        seen.append(snapshot.record.round_index)
        return snapshot.record.round_index == 2

    limits = RunSettings(num_clients=N, num_rounds=9)
    outcome = run_rounds(strategy(), World().engine(), PROBLEM, limits, callbacks=[stop])
    assert (outcome.stop, seen) == ("callback", [0, 1, 2])


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
def test_resume_gives_the_same_bits(cut: int) -> None:
    limits = RunSettings(num_clients=N, num_rounds=5, seed=4)
    taken: dict[int, tuple[Snapshot, dict]] = {}  # type: ignore[type-arg]
    engine = World().engine()

    def take(snapshot: Snapshot) -> None:
        taken[snapshot.record.round_index] = (snapshot, dict(engine.client_states()))

    config = {"participation": 0.5, "server_optimizer": "adam"}
    whole = run_rounds(strategy(**config), engine, PROBLEM, limits, callbacks=[take])
    snapshot, states = taken[cut]
    second = World().engine()
    second.restore_client_states(states)
    rest = run_rounds(strategy(**config), second, PROBLEM, limits, resume=snapshot)
    assert torch.equal(whole.state.x, rest.state.x)
    assert [r.value for r in rest.records] == [r.value for r in whole.records[cut + 1 :]]
    assert rest.stop == whole.stop


class TwoKinds(RoundStrategy):  # type: ignore[type-arg]
    """A round of two exchanges, the first of two kinds at once."""

    rounds = RoundConfig()

    def init(self, x: torch.Tensor, num_clients: int):  # type: ignore[no-untyped-def]
        return OpenProblem(initial_x=x), x

    def round(self, state, plan: RoundPlan):  # type: ignore[no-untyped-def]
        x = state.x.unsqueeze(0)
        few = Exchange(question=Values(x=x), client_ids=[0])
        many = Exchange(question=Judge(x=torch.cat([x, x])), client_ids=[1, 2, 3])
        one, three = yield [few, many]
        assert one.tensors["values"].shape == (1, 1)
        assert three.tensors["values"].shape == (3, 2)
        [again] = yield [Exchange(question=Values(x=x), client_ids=[2])]
        shift = float(one.tensors["values"].sum() + again.tensors["values"].sum())
        return type(state)(state.x - 0.01 * shift)


@dataclass(frozen=True)
class JustX:
    x: torch.Tensor


class TwoKindsOfX(TwoKinds):
    def init(self, x: torch.Tensor, num_clients: int) -> JustX:
        return JustX(x)


def test_rounds_may_have_several_exchanges_of_several_kinds() -> None:
    world = World()
    limits = RunSettings(num_clients=N, num_rounds=2)
    outcome = run_rounds(TwoKindsOfX(), world.engine(), FreeProblem(-1.0), limits)
    record = outcome.records[-1]
    assert record.queries == sum(world.asked.values()) == 2 * (1 + 6 + 1)
    assert record.client_queries == (1, 2, 3, 2)
    assert record.floats_down == 2 * (D + 3 * 2 * D + D)
    assert record.floats_up == 2 * (1 + 6 + 1)


def test_non_finite_updates_are_rejected_and_never_averaged() -> None:
    class Exploding(World):
        def make(self, client: int) -> CallableObjective:
            if client != 1:
                return super().make(client)
            return CallableObjective(function=lambda x: 1e307 if x.sum() > D else -1e307, dim=D)

    client = ZerothOrderConfig(estimator="coordinate", optimizer="sgd", mu=1e-4)
    fedzo = FedAvg(FedAvgConfig(local_steps=1), client=client)
    limits = RunSettings(num_clients=N, num_rounds=2)
    outcome = run_rounds(fedzo, Exploding().engine(), FreeProblem(-1.0), limits)
    assert outcome.state.x.isfinite().all()
    first = outcome.records[1]
    assert first.failures == {1: "rejected: update is not finite"}
    assert first.floats_up == N * D, "what was sent is counted, used or not"
