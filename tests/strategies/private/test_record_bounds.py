"""One client of seven says nonsense about its records, or nothing: noise, x and F stay."""

import math
import warnings
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.app import build_client_app
from fedzo.errors import ConfigError, FedzoWarning
from fedzo.protocol.seals import seal_answer
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from scenarios.runs.engines import ExperimentEnvironment
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import RunResult, simulate
from strategies.private.diff2_config import DIFF2Config
from strategies.private.private_fedavg import PrivateFedAvgConfig
from strategies.private.record_bounds import Claims, found_bound

LIAR, CLIENTS, RECORDS, SILENT = 2, 7, 20, "silent"
LIES = [1, 0, 10**18, -1, math.nan, SILENT]
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "dp_gd": ("dp_gd", {}),
    "diff2": ("diff2", {"strategy.restart_period": 2}),
    "filter": ("diff2", {"strategy.memory": "filter"}),
    "walks": (
        "diff2",
        {"strategy.routine": "bvr_l_sgd", "strategy.local_steps": 2, "strategy.local_batch": 10},
    ),
    "noise of clients": ("diff2", {"strategy.noise": "clients"}),
    "trimmed": ("dp_gd", {"strategy.aggregator": "trimmed_mean", "strategy.num_byzantine": 1}),
    "client": ("diff2", {"strategy.unit": "client"}),
    "diff2_zo": ("diff2_zo", {"client.num_directions": 5}),
    "dp_zo": ("dp_zo", {"client.num_directions": 5}),
    "dp_fedavg": ("dp_fedavg", {"strategy.local_steps": 2}),
    "dp_fedzo": ("dp_fedzo", {"strategy.local_steps": 2, "client.num_directions": 3}),
}


SOME = [(m, LIES[i % len(LIES)]) for i, m in enumerate(METHODS) if m != "walks"]
"""A lie for each; the slow test has them all."""


class Lying(ClientApp):
    """The app whose node LIAR says this number of records, in rounds from `since` on."""

    def __init__(self, app: ClientApp, said: Any, since: int) -> None:
        super().__init__()
        self._app, self._said, self._since = app, said, since

    def __call__(self, message: Message, context: Context) -> Message:
        kind = message.metadata.message_type
        if context.node_config["partition-id"] != LIAR or kind == "query.whoami":
            return self._app(message=message, context=context)
        head: Any = message.content["head"]
        if head["round_index"] < self._since:
            return self._app(message=message, context=context)
        if self._said == SILENT:
            raise RuntimeError("gone")
        reply = self._app(message=message, context=context)
        content = RecordDict(dict(reply.content.items()))
        counts: Any = content["counts"]
        content["counts"] = MetricRecord({**counts, "num_examples": self._said})
        seal: Any = content["seal"]
        seal_answer(content, seal["answers"])
        return Message(content, reply_to=message)


def go(
    method: str, said: Any = RECORDS, *, since: int = 0, rounds: int = 4, **more: Any
) -> RunResult:
    strategy, settings = METHODS[method]
    experiment = make_experiment(
        "regression",
        strategy,
        engine="superlink",
        num_rounds=rounds,
        num_clients=CLIENTS,
        settings={
            "scenario.max_records": CLIENTS * RECORDS * 5 // 4,
            "strategy.epsilon": 1e4,
            **settings,
            **more,
        },
    )
    app = build_client_app(ExperimentEnvironment(experiment.to_toml()))
    grid = InProcessGrid(Lying(app, said, since), num_clients=CLIENTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FedzoWarning)
        return simulate(experiment, grid=grid)


def noises(result: RunResult) -> list[float]:
    return [record.noise_std or 0.0 for record in result.records[1:]]


def withstands(method: str, said: Any) -> None:
    """With a client fewer noise grows by 7 / 6 (7 - 2 to 6 - 2 if trimmed), and F by little."""
    honest, result = go(method, rounds=2), go(method, said, rounds=2)
    fell = honest.initial_value - honest.final_value  # type: ignore[operator]
    assert result.stops == ["rounds"]
    assert len(result.records) == len(honest.records)
    assert noises(result)[0] <= 1.26 * noises(honest)[0]
    assert result.epsilon == pytest.approx(honest.epsilon, rel=1e-3)
    off = abs(result.final_value - honest.final_value)  # type: ignore[operator]
    assert off < 0.35 * abs(fell) + 0.01  # type: ignore[arg-type]


@pytest.mark.more
@pytest.mark.parametrize(("method", "said"), SOME)
def test_a_client_that_lies_about_its_records_sets_nobodys_noise(method: str, said: Any) -> None:
    withstands(method, said)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_no_lie_about_records_sets_anybodys_noise(method: str) -> None:
    for said in LIES:
        withstands(method, said)


@pytest.mark.more
@pytest.mark.parametrize("method", [m for m in METHODS if m != "walks"])
def test_a_client_that_goes_away_later_ends_no_run_and_costs_what_was_released(method: str) -> None:
    result = go(method, SILENT, since=3, rounds=4)
    released = [r for r in result.records[1:]]
    if method == "noise of clients":
        assert result.records[-1].epsilon > result.records[3].epsilon, "the others go on"  # type: ignore[operator]
        assert result.records[3].epsilon == result.records[2].epsilon, "void: nothing is charged"
        return
    assert all("gone" in r.failures[LIAR] for r in released[2:])
    assert result.epsilon == pytest.approx(1e4, rel=1e-2)


def test_who_was_left_out_is_told_and_comes_back_with_a_number() -> None:
    result = go("dp_gd", 1)
    why = result.records[1].failures
    assert list(why) == [LIAR]
    assert why[LIAR].startswith(
        f"left out: it says 1 records, and the noise is made for clients of {RECORDS}"
    )
    assert result.records[1].clients_answered == CLIENTS - 1
    late = go("dp_gd", SILENT, since=1)
    assert all(LIAR in record.failures for record in late.records[1:])
    shy = go("dp_gd", 1, since=2)
    assert not any(record.failures for record in shy.records), "it is asked once"


def test_the_public_bound_is_what_noise_is_made_for() -> None:
    plain, bounded = go("dp_gd"), go("dp_gd", **{"strategy.min_records": RECORDS // 2})
    assert noises(bounded)[0] == pytest.approx(2 * noises(plain)[0])
    most = 10**6
    with pytest.raises(
        ConfigError, match=f"min_records=1000000 is more than any of 7 .* {RECORDS}"
    ):
        go("dp_gd", **{"strategy.min_records": most})
    for config in (DIFF2Config, PrivateFedAvgConfig):
        with pytest.raises(ConfigError, match="has no effect with unit=client"):
            config(unit="client", min_records=5)
    with pytest.raises(ConfigError, match="min_records=-1 must be 0"):
        DIFF2Config(min_records=-1)


def test_a_minority_moves_the_bound_by_a_factor_of_two_at_most() -> None:
    assert found_bound([]) == 0
    assert found_bound([9, 3, 5, 7]) == 3, "nobody is left out for a small gain"
    assert found_bound([457] * 7) == 457
    assert found_bound([1, 1, 1, 457, 457, 457, 457]) == 457
    assert found_bound([1, 1, 1, 457]) == 1, "a majority cannot be told from honest clients"
    assert found_bound([10, 500, 500, 600, 700, 800, 900]) == 500
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        count = int(torch.randint(1, 12, (1,), generator=generator))
        honest = torch.randint(50, 100, (count,), generator=generator).tolist()
        liars = torch.randint(0, (count - 1) // 2 + 1, (1,), generator=generator)
        said = [
            *honest[int(liars) :],
            *torch.randint(1, 10**6, (int(liars),), generator=generator).tolist(),
        ]
        bound = found_bound(said)
        kept = sum(number >= bound for number in said)
        own = sorted(honest)[0] * (count - int(liars))
        assert 2 * kept * bound >= own, (said, bound)


def test_claims_say_who_takes_part() -> None:
    claims = Claims(torch.tensor([5, -1, 4, 0, 10**18, 5]), 5)
    assert claims.members == [0, 5]
    assert list(claims.left_out) == [2, 3, 4]
    assert Claims.none(3).members == []


def test_who_is_silent_where_all_must_answer_rests_longer_each_time() -> None:
    more = {"strategy.max_failed_rounds": 0, "strategy.epsilon": 1e5}
    result = go("noise of clients", SILENT, since=3, rounds=12, **more)
    void = [r.round_index for r in result.records[1:] if LIAR in r.failures]
    assert void == [3, 5, 8, 12]
    spent = [r.epsilon for r in result.records]
    assert [i for i in range(2, 13) if spent[i] == spent[i - 1]] == void
    assert result.stops == ["rounds"]


def test_too_few_for_the_rule_spoil_the_round() -> None:
    """Trimmed of three answers two on each side leave none to divide the noise by."""
    config = {"strategy.aggregator": "trimmed_mean", "strategy.num_byzantine": 3}
    with pytest.raises(Exception, match="num_byzantine=3 needs"):
        go("dp_gd", SILENT, **config)
