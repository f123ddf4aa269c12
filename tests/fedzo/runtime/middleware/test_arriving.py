"""Answers as they arrive: laws of staleness, counts, budgets, faults, and what is not repeated."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worlds import engine_of

from fedzo.adversary.lies import ByzantineConfig
from fedzo.compression.config import CompressionConfig
from fedzo.errors import ConfigError
from fedzo.fleet.config import FleetConfig
from fedzo.fleet.devices import Fleet
from fedzo.protocol.answers import NO_ANSWER
from fedzo.protocol.exchange import ClientState, Exchange, Moment, Replies
from fedzo.protocol.wave import Landed, Refill, Wave
from fedzo.runtime.engine import Engine
from fedzo.runtime.middleware.arriving import Arriving
from fedzo.runtime.middleware.byzantine import Byzantine
from fedzo.runtime.middleware.clocked import Clocked
from fedzo.runtime.middleware.compressing import Compressing
from fedzo.runtime.middleware.faulty import CRASHED, FaultConfig, Faulty
from fedzo.runtime.middleware.recording import Recording
from scenarios.runs.engines import RulesOf, build_scenario
from scenarios.runs.experiment import Experiment, build_strategy, make_experiment
from scenarios.runs.rehearsal import rehearsed
from scenarios.runs.simulate import posed
from strategies.core.driver import Outcome, RunSettings, run_rounds
from strategies.core.waves import NO_CLOCK

CLIENTS = 40
Durations = Callable[[int, int], float]


@dataclass
class Machines:
    """An engine whose clients take made-up times; in `begun`: when each at work ends."""

    inner: Engine
    seconds: Durations
    now: float = 0.0
    begun: dict[tuple[str, int], tuple[float, bool]] = field(default_factory=dict)
    most: int = 0

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        for exchange in exchanges:
            _, late = self.begun.pop((exchange.moment.token, exchange.client_ids[0]), (0, False))
            if late:
                [client] = exchange.client_ids
                return [Replies(client_ids=[], failures={client: NO_ANSWER})]
        return self.inner.perform(exchanges, timeout_s=timeout_s)

    def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
        busy = {client for _, client in self.begun}
        assert not busy & {*exchange.client_ids}
        for client in exchange.client_ids:
            takes = self.seconds(client, exchange.moment.round_index)
            end = self.now + min(takes, timeout_s)
            self.begun[exchange.moment.token, client] = end, takes > timeout_s
        self.most = max(self.most, len(self.begun))
        return exchange.client_ids

    def await_one(self) -> tuple[str, int]:
        key = min(self.begun, key=self.begun.__getitem__)
        self.now = self.begun[key][0]
        return key

    def client_states(self) -> Mapping[int, ClientState]:
        return self.inner.client_states()

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        self.begun.clear()
        self.inner.restore_client_states(states)

    def close(self) -> None:
        self.inner.close()


def exponential(client: int, round_index: int) -> float:
    return float(np.random.default_rng([client, round_index]).exponential()) + 1e-9


def log_normal(client: int, round_index: int) -> float:
    return float(np.random.default_rng([client, round_index]).lognormal(sigma=1.0))


def constant(client: int, round_index: int) -> float:
    return 1.0


def experiment(strategy: str, **settings: Any) -> Experiment:
    steps = {} if strategy == "fzoos_async" else {"strategy.local_steps": 2}
    usual = {"scenario.dim": 8, "strategy.participation": 0.25, **steps}
    by_arrival = {"fleet.preset": "none"} if strategy != "fedzo" else {}
    return make_experiment(
        "quadratic", strategy, engine="ray", num_clients=CLIENTS, num_rounds=12,
        settings={**usual, **by_arrival, **settings},
    )  # fmt: skip


def machines(made: Experiment, seconds: Durations = log_normal) -> Machines:
    world = build_scenario(made)
    engine = engine_of(world)
    engine._rules = RulesOf(made.strategy)
    return Machines(engine, seconds)


def run(made: Experiment, engine: Engine, **settings: Any) -> Outcome:
    told = RunSettings(num_clients=CLIENTS, num_rounds=12, seed=0, **settings)
    problem = posed(build_scenario(made), 0, made)
    return run_rounds(build_strategy(made), engine, problem, told)


@pytest.mark.more
@pytest.mark.parametrize(
    "seconds",
    [log_normal, *(pytest.param(s, marks=pytest.mark.slow) for s in (constant, exponential))],
)
@pytest.mark.parametrize("refill", ["arrival", "step"])
def test_the_mean_staleness_is_that_of_the_law(seconds: Durations, refill: Refill) -> None:
    at_work, until, waves = 30, 5, 200
    made = experiment("fedbuff_zo")
    engine = machines(made, seconds)
    server = Arriving(engine)
    ages: list[int] = []
    for number in range(1, waves + 1):
        landed = server.wave(wave(number, at_work, until, refill), timeout_s=1e9)
        assert len(landed.clients) == until
        ages += landed.staleness.tolist()
    settled = ages[len(ages) // 8 :]
    wanted = (at_work - 1) / until if refill == "arrival" else at_work / until - 1
    assert sum(settled) / len(settled) == pytest.approx(wanted, rel=0.03)
    assert engine.most <= at_work


def wave(number: int, at_work: int, until: int, refill: Refill, **more: Any) -> Wave:
    from fedzo.protocol.questions import Values

    return Wave(
        question=Values(x=torch.zeros(1, 8, dtype=torch.float64)), until=until, refill=refill,
        first=range(at_work), num_clients=CLIENTS, moment=Moment(0, number, 0), seed=3, **more,
    )  # fmt: skip


@pytest.mark.parametrize(("buffered", "plain"), [("fedbuff", "fedavg"), ("fedbuff_zo", "fedzo")])
def test_who_waits_for_all_is_synchronous_and_counts_the_same(buffered: str, plain: str) -> None:
    made, other = experiment(buffered, **{"strategy.refill": "step"}), experiment("fedzo")
    other = make_experiment(
        "quadratic", plain, num_clients=CLIENTS, num_rounds=12,
        settings={"scenario.dim": 8, "strategy.participation": 0.25, "strategy.local_steps": 2},
    )  # fmt: skip
    one, two = run(made, Arriving(machines(made))), run(other, machines(other).inner)
    assert torch.equal(one.state.x, two.state.x)
    for counted in ("queries", "gradients", "examples", "floats_up", "floats_down", "bytes_up",
                    "bytes_down", "client_queries", "value"):  # fmt: skip
        ours, theirs = ([getattr(r, counted) for r in o.records] for o in (one, two))
        assert ours == theirs, counted
    assert one.records[-1].virtual is None


def test_jobs_that_nobody_waits_for_any_more_are_counted() -> None:
    made = experiment("fedbuff_zo", **{"strategy.buffer": 4})
    engine = machines(made)
    found = run(made, Arriving(engine))
    each = 42
    assert len(engine.begun) == 9  # the last wave's last answer is not replaced
    assert found.records[-1].queries == each * (12 * 4 + 9)
    assert sum(sum(record.client_queries) for record in found.records) == each * (12 * 4 + 9)


@pytest.mark.parametrize("budget", [2100, 2101, 5000])
def test_the_budget_is_never_exceeded(budget: int) -> None:
    made = experiment("fedbuff_zo", **{"strategy.buffer": 4})
    told = RunSettings(num_clients=CLIENTS, num_rounds=900, seed=0, query_budget=budget)
    engine = machines(made)
    problem = posed(build_scenario(made), 0, made)
    found = run_rounds(build_strategy(made), Arriving(engine), problem, told)
    assert found.records[-1].queries == budget // 42 * 42
    assert found.stop == "budget"
    assert not engine.begun


def test_who_is_late_has_failed_and_its_place_is_free_again() -> None:
    made = experiment("fedbuff_zo", **{"strategy.buffer": 4, "strategy.timeout_s": 2.0})
    found = run(made, Arriving(machines(made, log_normal)))
    reasons = {reason for record in found.records for reason in record.failures.values()}
    assert reasons == {NO_ANSWER}
    assert found.records[-1].value is not None
    assert found.records[0].value is not None
    assert found.records[-1].value < found.records[0].value


def test_what_was_at_work_before_a_restart_is_asked_anew() -> None:
    server = Arriving(machines(experiment("fedbuff_zo"), constant))
    first = server.wave(wave(1, 10, 4, "step"), timeout_s=9)
    assert first.oldest == 1
    server.restore_client_states({})
    again = server.wave(wave(2, 10, 10, "step"), timeout_s=9)
    assert again.clients == list(range(10))
    assert again.staleness.tolist() == [0] * 10


def test_order_does_not_depend_on_what_came_first() -> None:
    """The answers of a wave are by client, and the same rows, whoever was faster."""

    def landed(seconds: Durations) -> Landed:
        return Arriving(machines(experiment("fedbuff_zo"), seconds)).wave(
            wave(1, 10, 10, "step"), timeout_s=99
        )  # fmt: skip

    one, other = landed(lambda c, r: 1.0 + c), landed(lambda c, r: 99.0 - c)
    assert one.clients == other.clients == list(range(10))
    assert torch.equal(one.tensors["values"], other.tensors["values"])


def test_faults_strike_alone() -> None:
    made = experiment("fedbuff_zo", **{"strategy.max_failed_rounds": 20})
    faulty = Faulty(machines(made), FaultConfig(crash=0.3, drop=0.1, duplicate=0.1), seed=0)
    found = run(made, Arriving(faulty))
    reasons = {reason for record in found.records for reason in record.failures.values()}
    assert reasons == {CRASHED, NO_ANSWER}
    landed = sum(faulty.injected.values())
    assert 60 <= landed <= 60 / 0.4
    assert faulty.injected["crash"] > 5


def test_flipped_labels_are_worked_on_from_the_start(tmp_path: Path) -> None:
    made = make_experiment(
        "classification", "fedbuff", engine="ray", num_clients=6,
        settings={"fleet.preset": "none", "strategy.refill": "step", "strategy.local_steps": 1},
    )  # fmt: skip
    poisoned: list[tuple[int, bool]] = []

    class Seen(Machines):
        def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
            poisoned.extend((client, exchange.poisoned) for client in exchange.client_ids)
            return Machines.begin(self, exchange, timeout_s=timeout_s)

    inner = Seen(engine_of(build_scenario(made)), constant)
    liars = Byzantine(inner, ByzantineConfig(attack="label_flip", num_clients=2), [4, 5], seed=0)
    asked = Wave(
        question=next_question(made), until=6, refill="step", first=range(6), num_clients=6,
        moment=Moment(0, 1, 0),
    )  # fmt: skip
    told = Arriving(liars).wave(asked, timeout_s=9)
    assert dict(poisoned) == {client: client in (4, 5) for client in range(6)}
    assert len(told.clients) == 6


def next_question(made: Experiment) -> Any:
    """Return what a strategy asks first."""
    from strategies.core.rounds import RoundPlan

    strategy, problem = build_strategy(made), posed(build_scenario(made), 0, made)
    plan = RoundPlan(round_index=1, num_rounds=1, num_clients=6, num_problems=1, cohort=range(6),
                     seed=0, problem=0, lower=-1e9, upper=1e9)  # fmt: skip
    return next(strategy.round(strategy.init(problem.initial_x, 6), plan)).question


def test_packed_answers_count_as_on_a_clock() -> None:
    packing = {"compression.up": "int8"}
    made = experiment("fedbuff_zo", **{"strategy.refill": "step", **packing})
    config: CompressionConfig = made.config("compression")
    packed = Compressing(machines(made), up=config.up_scheme, down=None)
    one = run(made, Arriving(packed))
    clock = Fleet(FleetConfig(preset="silo", query_s=1.0), seed=0)
    inner = Compressing(machines(made).inner, up=config.up_scheme, down=None)
    two = run(made, Clocked(inner, clock))
    assert torch.equal(one.state.x, two.state.x)
    for counted in ("queries", "bytes_up", "bytes_down", "floats_up", "floats_down"):
        assert getattr(one.records[-1], counted) == getattr(two.records[-1], counted), counted


def test_messages_are_recorded_when_they_went_and_came(tmp_path: Path) -> None:
    made = experiment("fedbuff_zo")
    record = Recording(machines(made), tmp_path / "messages.jsonl")
    found = run(made, Arriving(record))
    record.close()
    lines = [json.loads(line) for line in (tmp_path / "messages.jsonl").read_text().splitlines()]
    work = [line for line in lines if line["kind"].startswith("train")]
    down, up = ([line for line in work if line["way"] == way] for way in ("down", "up"))
    assert len(down) == len(up) == 60
    assert all(one["at_s"] <= other["at_s"] for one, other in zip(down, up, strict=True))
    assert sum(line["bytes"] for line in up) <= found.records[-1].bytes_up


def test_what_cannot_be_by_arrival_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine to ray"):
        make_experiment("quadratic", "fedbuff", settings={"fleet.preset": "none"})
    assert "ray" in NO_CLOCK
    with pytest.raises(ConfigError, match="by arrival each comes alone"):
        experiment("fedbuff_zo", **{"byzantine.attack": "sign_flip", "byzantine.num_clients": 2})
    flipping = {"byzantine.attack": "label_flip", "byzantine.num_clients": 2}
    make_experiment("classification", "fedbuff", engine="ray", num_clients=6,
                    settings={"fleet.preset": "none", **flipping})  # fmt: skip


def test_a_deployment_goes_by_arrival_unless_it_is_told_otherwise() -> None:
    made = make_experiment("quadratic", "fedbuff_zo", engine="superlink")
    assert made.settings["fleet.preset"] == "none"
    clocked = make_experiment(
        "quadratic", "fedbuff_zo", engine="superlink",
        settings={"fleet.preset": "silo", "fleet.query_s": 1.0},
    )  # fmt: skip
    assert clocked.settings["fleet.preset"] == "silo"


def test_a_rehearsal_needs_no_time() -> None:
    made = experiment("fzoos_async", **{"strategy.timeout_s": 1.0})
    found = rehearsed(made, build_scenario(made))
    assert found.a_round["queries"] > 0


@pytest.mark.parametrize("strategy", ["fedasync_zo", "fedbuff_zo"])
def test_who_never_begins_is_free_again(strategy: str) -> None:
    """One that crashes when it is sent off last has failed in the next wave, and lives."""
    made = experiment(
        strategy, **{"strategy.participation": 0.05, "strategy.max_failed_rounds": 1000}
    )
    engine = machines(made)
    faulty = Faulty(engine, FaultConfig(crash=0.85), seed=0)
    told = RunSettings(num_clients=CLIENTS, num_rounds=150, seed=0)
    problem = posed(build_scenario(made), 0, made)
    found = run_rounds(build_strategy(made), Arriving(faulty), problem, told)
    assert found.records[-1].round_index == 150
    heard = {client for record in found.records for client in record.clients}
    assert len(heard) > CLIENTS // 2


def test_who_never_begins_costs_nothing() -> None:
    made = experiment("fedbuff_zo", **{"strategy.refill": "step", "strategy.max_failed_rounds": 99})
    engine = machines(made)
    asked: list[int] = []
    plain = engine.inner.perform

    def counting(exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        found = plain(exchanges, timeout_s=timeout_s)
        asked.extend(replies.total("queries") for replies in found)
        return found

    engine.inner.perform = counting  # type: ignore[method-assign]
    found = run(made, Arriving(Faulty(engine, FaultConfig(crash=0.5), seed=0)))
    judged = 0  # the scenario knows F
    assert found.records[-1].queries == sum(asked) + judged
    assert 0 < found.records[-1].queries < 12 * 10 * 42


def test_reordering_is_refused_where_answers_come_alone() -> None:
    with pytest.raises(ConfigError, match=r"faults\.reorder has no effect by arrival"):
        experiment("fedbuff_zo", **{"faults.reorder": 0.5})
