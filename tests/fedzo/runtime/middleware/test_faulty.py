"""Laws of faults on purpose: each does what it says, all are counted, every strategy lives."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ON_A_CLOCK, ON_VECTORS, few_steps

from clients import make_rules
from clients.averaging.zeroth_order import MEMORY, ZerothOrderConfig
from fedzo.errors import ConfigError
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.answers import NO_ANSWER, Arrival, collect
from fedzo.protocol.exchange import ClientState, Exchange, Moment, Replies
from fedzo.protocol.messages import encode_replies
from fedzo.protocol.questions import ZerothOrderSteps
from fedzo.protocol.questions.values import Judge
from fedzo.randomness import stream
from fedzo.runtime.engine import Engine
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from fedzo.runtime.middleware.faulty import CRASHED, FATES, FaultConfig, Faulty, corrupt
from scenarios.runs.engines import build_scenario
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.simulate import RunResult, build_strategy, simulate
from strategies import FedAvg, FedAvgConfig, Outcome, run_rounds
from strategies.core.driver import RunSettings

D, N = 4, 5
X0 = torch.full((D,), 0.9, dtype=torch.float64)


def make(client: int) -> TorchObjective:
    return TorchObjective(function=lambda x: ((x - 0.1 * client) ** 2).sum(-1), dim=D)


def plain() -> InProcessEngine:
    return InProcessEngine(FunctionEnvironment(make), make_rules())


def question(round_index: int, clients: Sequence[int] = range(N), index: int = 1) -> Exchange:
    """Ask for residual steps: a rule that remembers its last values."""
    settings = ZerothOrderConfig(estimator="residual", num_directions=2)
    steps = ZerothOrderSteps(x=X0, settings=settings, local_steps=2, local_lr=0.1)
    return Exchange(question=steps, client_ids=clients, moment=Moment(0, round_index, index))


def asked(engine: Engine, *exchanges: Exchange) -> Replies:
    """Return the replies to the last of these exchanges, performed one after the other."""
    return [engine.perform([exchange], timeout_s=1.0)[0] for exchange in exchanges][-1]


def certain(fault: str) -> Faulty:
    return Faulty(plain(), FaultConfig(**{fault: 1.0}), seed=0)


@pytest.mark.parametrize(("judging", "told"), [(False, [[0, 1, 2]]), (True, [])])
def test_it_is_told_inside_whose_answers_are_lost_but_for_judges(
    judging: bool, told: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[list[int]] = []
    monkeypatch.setattr(Faulty, "lost", lambda self, clients: lost.append(sorted(clients)))
    exchange = question(1, range(3))
    if judging:
        exchange = replace(exchange, question=Judge(x=X0.reshape(1, -1)))
    asked(certain("drop"), exchange)
    assert lost == told


def test_a_crashed_client_does_nothing_and_keeps_its_state() -> None:
    inner = plain()
    asked(inner, question(1))
    before = {client: dict(state) for client, state in inner.client_states().items()}
    replies = asked(Faulty(inner, FaultConfig(crash=1.0), seed=0), question(2))
    assert replies.failures == dict.fromkeys(range(N), CRASHED)
    assert replies.total("queries") == 0
    assert inner.client_states() == before, "the very same tensors"


def test_a_client_whose_answer_is_dropped_has_worked() -> None:
    faulty = certain("drop")
    replies = asked(faulty, question(1))
    assert replies.failures == dict.fromkeys(range(N), NO_ANSWER)
    whole = plain()
    assert replies.counts == asked(whole, question(1)).counts
    for client, state in whole.client_states().items():
        assert torch.equal(faulty.client_states()[client][MEMORY], state[MEMORY])


def test_a_delayed_answer_comes_in_the_next_exchange_and_is_not_used() -> None:
    faulty = certain("delay")
    first = asked(faulty, question(1))
    assert (first.failures, first.late) == (dict.fromkeys(range(N), NO_ANSWER), 0)
    second = asked(faulty, question(2))
    assert (second.failures, second.late) == (dict.fromkeys(range(N), NO_ANSWER), N)
    assert asked(faulty, question(3, [0])).late == N, "from clients that are not asked, too"


def test_a_duplicate_is_counted_and_used_once() -> None:
    replies, once = asked(certain("duplicate"), question(1)), asked(plain(), question(1))
    assert replies.duplicates == N
    assert torch.equal(replies.tensors["update"], once.tensors["update"])
    assert (replies.counts, replies.failures) == (once.counts, {})


def test_another_order_changes_nothing() -> None:
    replies, once = asked(certain("reorder"), question(1)), asked(plain(), question(1))
    assert list(replies.client_ids) == list(range(N))
    assert torch.equal(replies.tensors["update"], once.tensors["update"])


def test_a_corrupt_answer_is_a_failure_or_visibly_not_finite() -> None:
    faulty = certain("corrupt")
    ways = set()
    for round_index in range(1, 20):
        replies = asked(faulty, question(round_index))
        assert not replies.tensors or not replies.tensors["update"].isfinite().all(dim=1).any()
        ways |= {reason.split(";")[0][:36] for reason in replies.failures.values()}
    assert len(ways) >= 4, f"several kinds of damage: {ways}"


@given(st.integers(0, 10_000), st.integers(0, 4))
def test_corrupting_never_gives_a_usable_answer(seed: int, client: int) -> None:
    exchange = question(1, [client])
    honest = Replies(
        client_ids=[client], tensors={"update": X0[None]}, counts={"queries": {client: 1}}
    )
    content = encode_replies(honest, token="0.1.1")[client]
    spoilt = corrupt(content, "0.1.1", stream(seed, "corrupt"))
    replies = collect(exchange, [Arrival(client, spoilt, "" if spoilt else "unreadable")])
    assert not replies.tensors or replies.failures or replies.tensors["update"].isnan().all()
    assert collect(exchange, [Arrival(client, content)]).failures == {}, "the sender's is whole"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"drop": -0.1}, r"drop=-0\.1 must be a probability"),
        ({"reorder": 1.1}, "reorder=1.1 must be a probability"),
        ({"crash": float("nan")}, "crash=nan must be a number"),
        ({"crash": 0.6, "corrupt": 0.6}, "at most 1"),
    ],
)
def test_what_is_no_probability_is_refused(config: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FaultConfig(**config)


def test_faults_depend_on_the_seed_and_the_exchange_alone() -> None:
    def fates(seed: int, rounds: Sequence[int]) -> dict[int, dict[int, str]]:
        faulty = Faulty(plain(), FaultConfig(crash=0.5), seed=seed)
        return {r: dict(asked(faulty, question(r)).failures) for r in rounds}

    assert fates(1, [1, 2, 3]) == fates(1, [3, 2, 1])
    assert fates(1, [1, 2, 3]) != fates(2, [1, 2, 3])
    assert fates(1, [1])[1] != fates(1, [2])[2]


def test_with_several_exchanges_at_once_each_client_fails_alone() -> None:
    faulty = Faulty(plain(), FaultConfig(crash=0.4, drop=0.3), seed=5)
    parts = faulty.perform([question(1, [0, 1]), question(1, [2, 3, 4])], timeout_s=1.0)
    for ids, replies in zip(([0, 1], [2, 3, 4]), parts, strict=True):
        assert sorted([*replies.client_ids, *replies.failures]) == ids


def test_an_answer_delayed_in_a_call_of_two_exchanges_is_late_once() -> None:
    faulty = certain("delay")
    parts = faulty.perform([question(1, [0, 1]), question(1, [2, 3, 4])], timeout_s=1.0)
    parts += faulty.perform([question(2)], timeout_s=1.0)
    assert sum(replies.late for replies in parts) == N


ALL_FAULTS = {"crash": 0.1, "drop": 0.1, "delay": 0.15, "duplicate": 0.1, "corrupt": 0.1}


def accounted(name: str, more: Mapping[str, Any], **faults: float) -> tuple[Outcome, Faulty]:
    """Run a strategy on a small quadratic with faults that can be looked at."""
    given_ = {"scenario.dim": 6, "strategy.max_failed_rounds": 20, **few_steps(name), **more}
    made = make_experiment("quadratic", name, num_rounds=15, num_clients=6, settings=given_)
    scenario = build_scenario(made)
    engine = InProcessEngine(scenario, make_rules())
    faulty = Faulty(engine, FaultConfig(**faults), seed=7)
    settings_ = RunSettings(num_clients=6, num_rounds=15)
    return run_rounds(build_strategy(made), faulty, scenario.problem(0), settings_), faulty


@pytest.mark.more
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("name", ["fedzo", "scaffold1", "seedzo"])
def test_the_history_adds_up(name: str, share: float) -> None:
    outcome, faulty = accounted(name, {"strategy.participation": share}, **ALL_FAULTS)
    done, records = faulty.injected, outcome.records
    assert sum(done[fate] > 0 for fate in FATES) >= len(FATES) - 1
    under_way = len(faulty._under_way)
    assert sum(r.late for r in records) + under_way == done["delay"]
    assert sum(r.duplicates for r in records) == done["duplicate"]
    for record in records[1:]:
        assert len(record.clients) == len(set(record.clients)) == round(6 * share)
        assert set(record.failures) <= set(record.clients)
        assert record.clients_asked == record.clients_answered + len(record.failures)
        assert all(record.failures.values())
    if name != "scaffold1":  # whose rounds ask a client twice
        times = sum(done[fate] for fate in (*FATES, "well"))
        assert times == sum(r.clients_asked for r in records)
        reasons = [reason for r in records for reason in r.failures.values()]
        assert reasons.count(CRASHED) == done["crash"]
        assert reasons.count(NO_ANSWER) == done["drop"] + done["delay"]
        assert len(reasons) == sum(done[f] for f in ("crash", "drop", "delay", "corrupt"))


VARIANTS = ["improved", "on_client", "paper", "official"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {}) for name in ON_VECTORS if name != "fzoos"
}
for _variant in VARIANTS:
    CASES[_variant] = ("fzoos", {"strategy.variant": _variant})
for _variant in VARIANTS[2:]:
    CASES[_variant][1].update({"client.num_features": 6, "strategy.local_steps": 1})


SLOW = ("paper", "official")
QUICK = [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in CASES]


def experiment(case: str, *, clients: int, rounds: int = 15, **faults: float) -> Experiment:
    name, more = CASES[case]
    faulty = {f"faults.{fault}": probability for fault, probability in faults.items()}
    return make_experiment(
        "quadratic",
        name,
        num_rounds=rounds,
        num_clients=clients,
        settings={
            "scenario.dim": 9,
            "strategy.max_failed_rounds": 20,
            **few_steps(name),
            **more,
            **faulty,
        },
    )


def finite(result: RunResult, rounds: int) -> bool:
    return bool(result.x.isfinite().all()) and result.records[-1].round_index == rounds


@pytest.mark.more
@pytest.mark.parametrize("case", QUICK)
def test_reordered_and_repeated_answers_change_no_bit(case: str) -> None:
    calm = simulate(experiment(case, clients=4, rounds=2))
    stirred = simulate(experiment(case, clients=4, rounds=2, reorder=0.7, duplicate=0.6))
    assert sum(record.duplicates for record in stirred.records) > 0
    assert torch.equal(stirred.x, calm.x)
    assert [r.value for r in stirred.records] == [r.value for r in calm.records]
    assert stirred.queries == calm.queries


@pytest.mark.more
@pytest.mark.parametrize("case", QUICK)
def test_every_strategy_lives_with_every_fault(case: str) -> None:
    result = simulate(experiment(case, clients=6, rounds=6, **ALL_FAULTS))
    assert finite(result, 6)
    least = 0 if case in ON_A_CLOCK else 5  # one answer a step, of which there are six
    assert sum(len(record.failures) for record in result.records) > least


def test_federated_training_lives_with_every_fault() -> None:
    given_ = {"scenario.dataset": "digits", "scenario.hidden": 4, "strategy.evaluate_every": 0}
    more = {f"faults.{name}": probability for name, probability in ALL_FAULTS.items()}
    made = make_experiment(
        "classification", "fedavg", num_rounds=6, num_clients=6, settings={**given_, **more}
    )
    assert finite(simulate(made), 6)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", [each for each in QUICK if each.values[0] not in ON_A_CLOCK])
def test_a_corrupt_answer_of_one_of_two_clients_ends_no_run(case: str, seed: int) -> None:
    """Where there is no majority, only what is expected tells the wrong answer."""
    made = experiment(case, clients=2, corrupt=0.4)
    scenario = build_scenario(made)
    engine = InProcessEngine(scenario, make_rules())
    faulty = Faulty(engine, FaultConfig(corrupt=0.4), seed=seed)
    limits = RunSettings(num_clients=2, num_rounds=4)
    outcome = run_rounds(build_strategy(made), faulty, scenario.problem(0), limits)
    assert outcome.state.x.isfinite().all()


@pytest.mark.parametrize("case", [each for each in QUICK if each.values[0] != "dadao"])
def test_a_round_in_which_all_crash_is_survived(case: str) -> None:
    result = simulate(experiment(case, clients=2, rounds=4, crash=0.7))
    assert any(len(record.failures) == 2 for record in result.records)
    assert result.x.isfinite().all()


class Dropping:
    """Loses, after the work, exactly the answers that a Faulty would corrupt."""

    def __init__(self, inner: Engine, config: FaultConfig, seed: int) -> None:
        self._inner = inner
        self._fates = Faulty(inner, config, seed=seed)
        self.lost = 0

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        received = self._inner.perform(exchanges, timeout_s=timeout_s)
        return [self._without(e, replies) for e, replies in zip(exchanges, received, strict=True)]

    def _without(self, exchange: Exchange, replies: Replies) -> Replies:
        fates = zip(exchange.client_ids, self._fates._draw(exchange).fates, strict=True)
        lost = {client: "lost" for client, fate in fates if fate == "corrupt"}
        self.lost += len(lost)
        return replies.without(lost)

    def client_states(self) -> Mapping[int, ClientState]:
        return self._inner.client_states()

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        self._inner.restore_client_states(states)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["drop", "corrupt", "delay"])
@pytest.mark.parametrize(
    "case",
    ["scaffold2", *(pytest.param(c, marks=pytest.mark.slow) for c in ("scaffold1", "on_client"))],
)
def test_an_answer_that_is_lost_is_as_good_as_a_crash(case: str, fault: str) -> None:
    """What clients remember must not part from what the server knows: SCAFFOLD II once diverged."""
    lost, calm = (
        simulate(experiment(case, clients=5, rounds=60, **faults))
        for faults in ({fault: 0.1}, {"crash": 0.1})
    )
    start = calm.records[0].value
    assert lost.final_value - start < 0.8 * (calm.final_value - start)


@settings(max_examples=5)
@given(seed=st.integers(0, 1000), rate=st.sampled_from([0.1, 0.4, 0.8]))
def test_corrupt_answers_are_never_averaged(seed: int, rate: float) -> None:
    """Bit for bit as if they had not come."""
    config = FaultConfig(corrupt=rate)

    def go(engine: Engine) -> Outcome:
        client = ZerothOrderConfig(num_directions=2)
        fedzo = FedAvg(
            FedAvgConfig(local_steps=2, max_failed_rounds=20, evaluate_every=0),
            client=client,
        )
        problem = OpenProblem(initial_x=X0, asks_clients=False)
        return run_rounds(fedzo, engine, problem, RunSettings(num_clients=N, num_rounds=4))

    dropping = Dropping(plain(), config, seed)
    lost = go(dropping)
    spoilt = go(Faulty(plain(), config, seed=seed))
    assert torch.equal(spoilt.state.x, lost.state.x)
    assert [set(r.failures) for r in spoilt.records] == [set(r.failures) for r in lost.records]
    if dropping.lost:
        assert not torch.equal(spoilt.state.x, go(plain()).state.x)
