"""Whose answers F is made of, and how many there must be."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clients.rules import make_rules
from fedzo.errors import ConfigError, FedzoWarning, RunError
from fedzo.objectives.objective import CallableObjective
from fedzo.objectives.problem import OpenProblem, Report
from fedzo.protocol.exchange import JUDGING_REST, Exchange, Replies
from fedzo.records.history import RoundRecord
from fedzo.runtime.engine import Middleware
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from scenarios import federate
from scenarios.runs.experiment import make_experiment
from strategies import FedAvg, FedAvgConfig, Outcome, run_rounds
from strategies.core.driver import RunSettings
from strategies.core.judging import judged_models, required_judges, standard_error, trusted_values

CLIENTS = 5


def box(client: int) -> CallableObjective:
    return CallableObjective(function=lambda x: float(((x - client) ** 2).sum()), dim=2)


@dataclass(frozen=True)
class Goal(OpenProblem):
    """Solved as soon as F is below 2."""

    def report(self, x: Tensor, values: Tensor | None) -> Report:
        assert values is not None
        return Report(float(values.mean()), solved=bool(values.mean() < 2))


class Judges(Middleware):
    """Leaves out, or replaces, what clients say when x is judged in some rounds."""

    def __init__(self, silent: dict[int, list[int]], says: dict[int, float] | None = None) -> None:
        super().__init__(InProcessEngine(FunctionEnvironment(box), make_rules()))
        self._silent, self._says = silent, says or {}

    def perform(self, exchanges: list[Exchange], *, timeout_s: float) -> list[Replies]:  # type: ignore[override]
        received = self._inner.perform(exchanges, timeout_s=timeout_s)
        return [self._changed(e, r) for e, r in zip(exchanges, received, strict=True)]

    def _changed(self, exchange: Exchange, replies: Replies) -> Replies:
        if exchange.kind != "evaluate":
            return replies
        values = replies.tensors["values"].clone()
        for client, said in self._says.items():
            values[client] = said
        spoilt = replace(replies, tensors={**replies.tensors, "values": values})
        gone = self._silent.get(exchange.moment.round_index, [])
        return spoilt.without(dict.fromkeys(gone, "no answer in time"))


def run(
    silent: dict[int, list[int]],
    *,
    says: dict[int, float] | None = None,
    known: bool = True,
    rounds: int = 4,
    **config: object,
) -> Outcome:
    strategy = FedAvg(FedAvgConfig(local_lr=0.01, local_steps=1, **config))  # type: ignore[arg-type]
    settings = RunSettings(
        num_clients=CLIENTS, num_rounds=rounds, liars=frozenset() if known else None
    )
    start = torch.zeros(2, dtype=torch.float64)
    return run_rounds(strategy, Judges(silent, says), Goal(initial_x=start), settings)


def test_an_f_by_fewer_judges_than_can_answer_ends_nothing() -> None:
    # Only client 0, whose minimum is the start, is left to judge: by it alone F = 0 < 2.
    with pytest.warns(FedzoWarning, match="round 2: 1 clients have judged x, and 5"):
        outcome = run({2: [1, 2, 3, 4]})
    assert [record.partial for record in outcome.records] == [False, False, True, False, False]
    assert outcome.records[2].judges == 1
    assert outcome.records[2].whole_value is None
    assert outcome.stop == "rounds"


def test_with_min_judges_fewer_are_enough() -> None:
    outcome = run({2: [1, 2, 3, 4]}, min_judges=1)
    assert outcome.stop == "solved"
    assert not outcome.records[2].partial


def test_who_is_known_to_fail_is_not_waited_for_unless_it_is_half_of_all() -> None:
    with pytest.warns(FedzoWarning):
        outcome = run({1: [4], 2: [4], 3: [2, 3, 4], 4: [2, 3, 4]})
    assert [record.partial for record in outcome.records] == [False, True, False, True, True]


@pytest.mark.parametrize(
    ("known_to_fail", "min_judges", "expected"), [(0, 0, 7), (2, 0, 5), (6, 0, 4), (0, 3, 3)]
)
def test_required_judges(known_to_fail: int, min_judges: int, expected: int) -> None:
    assert required_judges(7, known_to_fail, min_judges) == expected


@pytest.mark.parametrize("lie", [float("nan"), -1e30, 1e300, -50.0])
def test_one_judge_does_not_decide_where_nobody_knows_the_liars(lie: float) -> None:
    robust = {"aggregator": "trimmed_mean", "num_byzantine": 1}
    honest = run({}, known=False, **robust)
    lying = run({}, says={4: lie}, known=False, **robust)
    for calm, spoilt in zip(honest.records, lying.records, strict=True):
        assert calm.value is not None
        assert spoilt.value is not None
        assert abs(calm.value - spoilt.value) < 10  # clients' values are 0 to 32
        assert not spoilt.partial
    assert honest.records[0].judges == 3


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=9),
    lie=st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_trusted_mean_stays_among_honest_values(values: list[float], lie: float) -> None:
    found = trusted_values(torch.tensor([*values, lie], dtype=torch.float64), 1)
    assert min(values) - 1e-6 <= float(found.mean()) <= max(values) + 1e-6


@dataclass(frozen=True)
class Peers:
    """The state of a method in which every node has a model."""

    x: Tensor
    clients: Tensor
    models: Tensor


def test_models_far_from_the_others_are_not_judged() -> None:
    models = torch.tensor([[0.0], [1.0], [99.0], [0.5], [0.2]])
    peers = Peers(torch.zeros(1), torch.arange(5), models)
    assert judged_models(peers, frozenset(), 1)[0] == [0, 1, 3, 4]
    assert judged_models(peers, frozenset({2}), 0)[0] == [0, 1, 3, 4]
    assert judged_models(peers, frozenset())[0] == [0, 1, 2, 3, 4]


def test_a_run_that_nobody_answers_fails() -> None:
    asked = {"times": 0}

    def broken(client: int) -> CallableObjective:
        def f(x: Tensor) -> float:
            asked["times"] += 1
            if asked["times"] > CLIENTS:
                raise ValueError("the data base is down")
            return 0.0

        return CallableObjective(function=f, dim=2)

    with pytest.raises(RunError, match=r"nobody has answered in any of 3 rounds.*data base"):
        federate(broken, num_clients=CLIENTS, num_rounds=3)


def by_sample(seed: int = 0, **settings: int) -> Sequence[RoundRecord]:
    """Return the records of 40 clients with values of their own, of whom some judge."""

    def objective(client: int) -> CallableObjective:
        return CallableObjective(function=lambda x: float(((x - client / 10) ** 2).sum()), dim=2)

    given = {f"strategy.{name}": value for name, value in settings.items()}
    quick = {"strategy.local_steps": 1, "client.num_directions": 2, "strategy.participation": 0.1}
    done = federate(objective, num_clients=40, num_rounds=3, seed=seed, settings={**quick, **given})
    return done.records


def test_a_sample_judges_and_says_how_well() -> None:
    whole, off = by_sample(), []
    assert all("standard_error" not in record.metrics for record in whole)
    for seed in range(20):
        first = by_sample(seed, judges=10)[0]
        assert first.judges == 10
        assert not first.partial
        assert first.value is not None
        assert whole[0].value is not None
        off.append((first.value - whole[0].value) / first.metrics["standard_error"])
    assert 0.5 < statistics.pstdev(off) < 2
    assert abs(statistics.mean(off)) < 1


def test_the_sample_is_drawn_anew_and_costs_what_it_asks() -> None:
    records = by_sample(judges=10)
    asked = [set(record.clients) for record in records]
    assert len(asked[0]) == 10
    assert len({*map(frozenset, asked)}) == len(asked)
    everybody = by_sample()
    assert everybody[-1].queries - records[-1].queries == 4 * 30
    assert [r.value for r in by_sample(judges=10)] == [r.value for r in records]
    assert by_sample(judges=40)[-1].value == everybody[-1].value


def test_the_error_of_a_draw_is_that_of_all_draws() -> None:
    values = torch.tensor([1.0, 4.0, 2.0, 8.0, 5.0], dtype=torch.float64)
    draws = [values[list(some)] for some in itertools.combinations(range(5), 3)]
    spread = torch.stack([draw.mean() for draw in draws]).var(correction=0)
    told = torch.tensor([standard_error(draw, 5) ** 2 for draw in draws]).mean()
    assert torch.allclose(told.double(), spread)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"judges": 1}, "judges=1"),
        ({"judges": 41}, "at most clients=40"),
        ({"judges": 10, "min_judges": 11}, "at most strategy.judges=10"),
    ],
)
def test_samples_that_cannot_be_are_refused(given: dict[str, int], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        by_sample(**given)


def test_judges_are_refused_where_f_is_known() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.judges"):
        make_experiment("quadratic", "fedzo", settings={"strategy.judges": 3})


def test_a_goal_that_a_sample_reports_is_reached_only_where_the_others_say_so_too() -> None:
    """Clients 0 and 1 alone have F below 2 at the start; all five have not."""
    strategy = FedAvg(FedAvgConfig(local_lr=1e-6, local_steps=1, judges=2))
    settings = RunSettings(num_clients=CLIENTS, num_rounds=30, liars=frozenset())
    start = torch.full((2,), 0.5, dtype=torch.float64)
    outcome = run_rounds(strategy, Judges({}), Goal(initial_x=start), settings)
    assert outcome.stop == "rounds"
    completed = [record for record in outcome.records if record.judges == CLIENTS]
    assert completed  # some sample was these two
    assert all("standard_error" not in record.metrics for record in completed)
    assert all(record.value == pytest.approx(8.5, rel=0.1) for record in completed)


def test_who_has_failed_to_judge_is_asked_again_before_a_goal_counts() -> None:
    class Once(Judges):
        """Leaves clients out when x is first judged in a round, not when they are asked again."""

        def _changed(self, exchange: Exchange, replies: Replies) -> Replies:
            again = exchange.moment.exchange_index == JUDGING_REST
            return replies if again else super()._changed(exchange, replies)

    strategy = FedAvg(FedAvgConfig(local_lr=0.01, local_steps=1, min_judges=1))
    settings = RunSettings(num_clients=CLIENTS, num_rounds=3, liars=frozenset())
    start = torch.zeros(2, dtype=torch.float64)
    once = Once({2: [1, 2, 3, 4]})
    outcome = run_rounds(strategy, once, Goal(initial_x=start), settings)
    assert outcome.stop == "rounds"
    assert outcome.records[2].judges == CLIENTS
    asked = [record.queries for record in outcome.records]
    assert asked[2] - asked[1] == asked[1] - asked[0] + 4


def test_who_judged_last_time_is_not_known_to_fail() -> None:
    """Whatever else it failed at."""
    with pytest.warns(FedzoWarning):
        outcome = run({2: [4], 4: [4]})
    assert [record.partial for record in outcome.records] == [False, False, True, False, True]
