"""Compressed messages: the same bits on every engine, nothing lost, sizes as on the wire."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import fedzo
from fedzo.compression.scheme import Scheme
from fedzo.errors import ConfigError, FedzoWarning
from fedzo.protocol import questions as q
from fedzo.protocol.exchange import Exchange, Moment, Replies
from fedzo.protocol.messages import encode_exchange, encode_replies
from fedzo.protocol.packing import NOBODYS, WIRE
from fedzo.protocol.questions.training import FirstOrderSteps
from fedzo.protocol.questions.training_config import FirstOrderConfig, ZerothOrderConfig
from fedzo.protocol.sizes import sizes_down, sizes_up
from fedzo.runtime.engine import Middleware
from fedzo.runtime.feedback import pack_replies
from fedzo.runtime.middleware.broadcast import Broadcast
from fedzo.runtime.middleware.compressing import Compressing
from scenarios.cli.app import app
from scenarios.runs.experiment import make_experiment
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate

UP, DOWN = "compression.up", "compression.down"
DRAWN = {UP: "int4", DOWN: "int4", "compression.rounding": "stochastic"}
FEW = {
    UP: "top_k", DOWN: "sign", "compression.fraction": 0.05, "compression.residual": "int4",
    "strategy.participation": 0.5,
}  # fmt: skip


def run(strategy: str = "fedzo", engine: str = "inprocess", **more: Any) -> RunResult:
    return simulate(experiment(strategy, engine, **more), **more.get("given", {}))


def experiment(strategy: str, engine: str = "inprocess", **more: Any) -> Any:
    return make_experiment(
        more.get("scenario", "quadratic"),
        strategy,
        engine=engine,
        num_rounds=more.get("rounds", 6),
        num_clients=more.get("clients", 6),
        seed=1,
        settings=more.get("settings", {}),
    )


@pytest.mark.more
@pytest.mark.parametrize("settings", [DRAWN, FEW], ids=["int4", "top_k"])
@pytest.mark.parametrize(
    "strategy", ["fedzo", "scaffold_exact", "fednova", "fedamd", "fedsaga", "dshb", "mifa"]
)
def test_the_wire_changes_nothing(strategy: str, settings: dict[str, Any]) -> None:
    plain = run(strategy, settings=settings)
    same(plain, run(strategy, settings={**settings, "engine.strict": True}))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [DRAWN, FEW], ids=["int4", "top_k"])
@pytest.mark.parametrize("engine", ["flower", "ray"])
@pytest.mark.parametrize("strategy", ["scaffold_exact", "fedzo"])
def test_every_engine_gives_the_same_bits(
    strategy: str, engine: str, settings: dict[str, Any]
) -> None:
    same(run(strategy, settings=settings), run(strategy, engine, settings=settings))


def same(one: RunResult, other: RunResult) -> None:
    assert torch.equal(one.x, other.x)
    assert other.records[-1].bytes_up == one.records[-1].bytes_up
    assert other.records[-1].bytes_down == one.records[-1].bytes_down
    assert not any(record.failures for record in other.records)


def test_chunks_change_nothing() -> None:
    assert torch.equal(run(settings=DRAWN).x, run(settings={**DRAWN, "engine.chunk_size": 1}).x)


@pytest.mark.more
@pytest.mark.parametrize("settings", [DRAWN, FEW], ids=["int4", "top_k"])
def test_a_run_goes_on_from_a_checkpoint_as_if_nothing_had_been(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = run(settings=settings, rounds=8)
    run(settings=settings, rounds=4, given={"out": tmp_path})
    resumed = run(settings=settings, rounds=8, given={"out": tmp_path, "resume": True})
    assert torch.equal(whole.x, resumed.x)
    assert resumed.records[-1].bytes_down == whole.records[-1].bytes_down


class Listening(Middleware):
    """Keeps what passes, and loses whom it is told to."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.heard: list[tuple[Exchange, Replies]] = []
        self.lost: set[int] = set()

    def perform(self, exchanges: Any, *, timeout_s: float) -> list[Replies]:
        found = self._inner.perform(exchanges, timeout_s=timeout_s)
        found = [
            replies.without({c: "lost" for c in self.lost if c in replies.client_ids})
            for replies in found
        ]
        self.heard += zip(exchanges, found, strict=True)
        return found


class Echo:
    """Clients whose update is their number times x, packed as `serve` does."""

    def __init__(self) -> None:
        self.states: dict[int, Any] = {}
        self.meant: dict[int, Any] = {}

    def perform(self, exchanges: Any, *, timeout_s: float) -> list[Replies]:
        [exchange] = exchanges
        x = exchange.question.x
        rows = torch.stack([(1 + client) * x for client in exchange.client_ids])
        replies = Replies(client_ids=exchange.client_ids, tensors={"update": rows})
        before = [self.states.get(client, {}) for client in exchange.client_ids]
        packed, after = replies, before
        if exchange.up is not None:
            packed, after = pack_replies(exchange, replies, before)
        self.meant = dict(zip(exchange.client_ids, rows.double(), strict=True))
        self.states.update(zip(exchange.client_ids, after, strict=True))
        return [packed]

    def client_states(self) -> dict[int, Any]:
        return self.states

    def restore_client_states(self, states: Any) -> None:
        self.states = dict(states)

    def close(self) -> None:
        pass


def steps(x: torch.Tensor, round_index: int, clients: list[int]) -> Exchange:
    question = FirstOrderSteps(x=x, settings=FirstOrderConfig(), local_steps=1, local_lr=0.1)
    return Exchange(question=question, client_ids=clients, moment=Moment(0, round_index, 0))


@pytest.mark.parametrize("method", ["int2", "sign", "top_k", "float16"])
def test_all_that_is_meant_arrives_in_the_end(method: Any) -> None:
    """Sum of what arrived + residual = sum of what was meant, for who takes part at times only."""
    echo = Echo()
    engine = Compressing(echo, up=Scheme(method), down=None)
    meant, came = torch.zeros(3, 200, dtype=torch.float64), torch.zeros(3, 200, dtype=torch.float64)
    for round_index in range(1, 12):
        x = torch.randn(200, generator=torch.Generator().manual_seed(round_index))
        clients = [c for c in range(3) if round_index % (c + 1) == 0]
        [replies] = engine.perform([steps(x, round_index, clients)], timeout_s=1.0)
        for row, client in zip(replies.tensors["update"], clients, strict=True):
            came[client] += row.double()
            meant[client] += echo.meant[client]
    key = f"{WIRE}train.first_order/update"
    owed = torch.stack([echo.states[client][key] for client in range(3)])
    torch.testing.assert_close(came + owed, meant, rtol=1e-12, atol=1e-12)
    assert float((came - meant).abs().max()) > 1e-3, "something was left out on the way"


def test_views_follow_x_whoever_is_away() -> None:
    """Who has missed changes gets them all; the sum of what clients get is what they have."""
    engine = Compressing(listening := Listening(Echo()), up=None, down=Scheme("top_k"))
    have: dict[int, torch.Tensor] = {}
    version: dict[int, int] = {}
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    compressor = Scheme("top_k").compressor
    for round_index in range(1, 30):
        x = x + 0.01 * torch.randn(5000, generator=torch.Generator().manual_seed(round_index))
        clients = [c for c in range(4) if round_index % (2 * c + 1) == 0]
        engine.perform([steps(x, round_index, clients)], timeout_s=1.0)
        exchange = listening.heard[-1][0]
        down = exchange.down["x"]
        for row, client in enumerate(clients):
            if down.since[row] == NOBODYS:
                have[client] = exchange.question.x
            else:
                assert down.since[row] == version[client]
                for v in range(down.since[row] + 1, down.version + 1):
                    have[client] = have[client] + compressor.decode(down.changes[v], 5000)[0]
            version[client] = down.version
            assert torch.equal(have[client], exchange.question.x)
    assert version[3] > 0, "somebody was away for seven rounds and was told changes"
    assert [row for row in down.since if row == NOBODYS] == []


def test_who_has_failed_gets_x_whole() -> None:
    engine = Compressing(listening := Listening(Echo()), up=None, down=Scheme("top_k"))
    x = torch.randn(5000)
    for round_index, lost in ((1, set()), (2, {1}), (3, set()), (4, set())):
        listening.lost = lost
        engine.perform([steps(x + round_index, round_index, [0, 1])], timeout_s=1.0)
    since = [list(exchange.down["x"].since) for exchange, _ in listening.heard]
    assert since == [[NOBODYS, NOBODYS], [0, 0], [1, NOBODYS], [2, 2]]


@pytest.mark.parametrize(
    "lost",
    [
        {"faults.drop": 0.3},
        {"faults.corrupt": 0.3},
        {"fleet.preset": "silo", "fleet.query_s": 0.01, "fleet.drop_out": 0.3},
    ],
)
def test_who_was_not_heard_gets_x_whole_wherever_the_answer_was_lost(lost: dict[str, Any]) -> None:
    found = run(clients=10, rounds=10, settings={"scenario.dim": 1000, DOWN: "int4", **lost})
    down = [b.bytes_down - a.bytes_down for a, b in itertools.pairwise(found.records)]
    whole = down[0] / 10
    for before, took in zip(found.records[1:-1], down[1:], strict=True):
        assert took > len(before.failures) * 0.9 * whole


def test_who_was_away_for_long_gets_x_whole() -> None:
    """Where all the changes together are more than x."""
    broadcast = Broadcast("x", Scheme("int8"))
    x = torch.randn(6400)
    broadcast.heard(broadcast.down(x, steps(x, 1, [0, 1])), [0, 1], [])
    for round_index in range(2, 7):
        exchange = steps(x + round_index, round_index, [0])
        broadcast.heard(broadcast.down(exchange.question.x, exchange), [0], [])
    exchange = steps(x, 7, [0, 1])
    down = broadcast.down(x, exchange)
    assert list(down.since) == [5, NOBODYS]
    assert len(down.changes) == 3


def test_what_is_counted_is_what_the_messages_hold() -> None:
    """Arrays in the messages have as many bytes as were counted, but for numbers and words."""
    echo = Echo()
    engine = Compressing(listening := Listening(echo), up=Scheme("int4"), down=Scheme("sign"))
    x = torch.randn(1000)
    for round_index in (1, 2):
        engine.perform([steps(x + round_index, round_index, [0, 1, 2])], timeout_s=1.0)
    exchange, replies = listening.heard[-1]
    for content, size in zip(encode_exchange(exchange), sizes_down(exchange), strict=True):
        arrays = [a for part in ("shared", "own") for a in content[part].values()]  # type: ignore[union-attr]
        assert sum(array.numpy().nbytes for array in arrays) == 125 + 4
        assert 129 < size.bytes < 129 + 200
    contents = encode_replies(replies).values()
    for content, size in zip(contents, sizes_up(exchange, replies), strict=True):
        arrays = [array.numpy() for array in content["tensors"].values()]  # type: ignore[union-attr]
        assert sum(array.nbytes for array in arrays) == size.bytes == 500 + 4 * 16
        assert sum(array.size for array in arrays) == size.floats


def test_who_cannot_be_decoded_has_failed() -> None:
    class Lying(Echo):
        def perform(self, exchanges: Any, *, timeout_s: float) -> list[Replies]:
            [replies] = super().perform(exchanges, timeout_s=timeout_s)
            replies.tensors["update/places"][1, 0] = 32_767
            return [replies]

    engine = Compressing(Lying(), up=Scheme("top_k"), down=None)
    [replies] = engine.perform([steps(torch.randn(500), 1, [3, 4, 5])], timeout_s=1.0)
    assert replies.failures == {4: "malformed reply: update cannot be decoded"}
    assert list(replies.client_ids) == [3, 5]


@pytest.mark.parametrize(
    "attack",
    ["alie", *(pytest.param(a, marks=pytest.mark.slow) for a in ("sign_flip", "label_flip"))],
)
def test_liars_speak_in_packed_messages_too(attack: str) -> None:
    settings = {
        UP: "top_k", DOWN: "int8", "compression.fraction": 0.1, "byzantine.attack": attack,
        "byzantine.num_clients": 2, "strategy.num_byzantine": 2, "strategy.aggregator": "median",
        "strategy.participation": 1.0,
    }  # fmt: skip
    world: dict[str, Any] = {"scenario": "classification", "clients": 8, "rounds": 1}
    plain = run("fedavg", settings=settings, **world)
    same(plain, run("fedavg", settings={**settings, "engine.strict": True}, **world))
    bare = {
        name: value for name, value in settings.items() if name not in (UP, "compression.fraction")
    }
    assert not torch.equal(plain.x, run("fedavg", settings=bare, **world).x)


def test_faults_are_borne() -> None:
    faults = {"faults.crash": 0.1, "faults.drop": 0.1, "faults.delay": 0.1, "faults.corrupt": 0.2}
    plain = run("fedavg", scenario="classification", rounds=6, settings={**DRAWN, **faults})
    strict = run(
        "fedavg",
        scenario="classification",
        rounds=6,
        settings={**DRAWN, **faults, "engine.strict": True},
    )
    assert any(record.failures for record in plain.records)
    assert torch.equal(plain.x, strict.x)
    assert plain.records[-1].value is not None
    assert plain.records[-1].value < plain.records[0].value  # type: ignore[operator]


def test_clients_at_work_pack_what_they_send(tmp_path: Path) -> None:
    settings = {UP: "int4", "strategy.buffer": 2, "fleet.jitter": 0.5}
    whole = run("fedbuff_zo", settings=settings, rounds=12)
    bare = run("fedbuff_zo", settings={k: v for k, v in settings.items() if k != UP}, rounds=12)
    assert whole.records[-1].bytes_up < bare.records[-1].bytes_up / 4
    assert whole.records[-1].axis("virtual_seconds") < bare.records[-1].axis("virtual_seconds")
    run("fedbuff_zo", settings=settings, rounds=5, given={"out": tmp_path})
    resumed = run(
        "fedbuff_zo", settings=settings, rounds=12, given={"out": tmp_path, "resume": True}
    )
    assert torch.equal(whole.x, resumed.x)


def test_packed_messages_take_less_time() -> None:
    fleet = {"fleet.preset": "nb-iot", "fleet.query_s": 0.001}
    seconds = [
        run(settings={**fleet, **more}).records[-1].axis("virtual_seconds") for more in ({}, DRAWN)
    ]
    assert seconds[1] < seconds[0]


@pytest.mark.parametrize(
    ("strategy", "settings", "match"),
    [
        ("seedzo", {UP: "int4"}, r"compression\.up=int4 has no effect with rule=probes"),
        ("square", {DOWN: "int4"}, r"compression\.down=int4 has no effect with rule=values"),
        ("dp_fedavg", {UP: "sign"}, r"the epsilon of dp_fedavg would not hold"),
        (
            "fedbuff",
            {DOWN: "sign"},
            "does not go with fedbuff, which has no rounds",
        ),
        ("fedpage", {DOWN: "sign"}, "which counts on answers at exactly its own x"),
        ("fzoos", {DOWN: "int8"}, "which counts on answers at exactly its own x"),
        ("fedzen", {DOWN: "bfloat16"}, "which counts on answers at exactly its own x"),
        ("monna", {UP: "sign"}, r"peers"),
        ("fedavg", {UP: "gzip"}, r"compression\.up=.*gzip"),
        ("fedavg", {UP: "top_k", "compression.fraction": 0.0}, r"fraction=0\.0 must be"),
        ("fedavg", {"compression.fraction": 0.1}, r"compression\.fraction=0\.1 has no effect"),
        ("fedavg", {UP: "sign", "compression.rounding": "stochastic"}, "has no effect"),
        ("fedavg", {DOWN: "sign", "compression.error_feedback": False}, "has no effect"),
    ],
)
def test_what_would_be_wrong_or_idle_is_refused(
    strategy: str, settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        experiment(strategy, scenario="classification", settings=settings)


def test_nothing_to_pack_is_said_of_each_way() -> None:
    """Anchors along directions tell slopes; x goes down packed all the same."""
    settings = {UP: "int4", DOWN: "int4", "client.gradient": "zeroth_order"}
    settings |= {"strategy.anchor_probability": 1.0}
    with pytest.warns(FedzoWarning, match="compression.up had no effect"):
        run("fedamd", settings=settings, rounds=2)


@pytest.mark.parametrize("more", [{}, {"engine.chunk_size": 1}])
def test_clients_that_fail_alone_or_all_together_end_no_run(more: dict[str, Any]) -> None:
    def make(client: int) -> fedzo.TorchObjective:
        asked = iter(range(1000))

        def value(x: torch.Tensor) -> torch.Tensor:
            if client == 2 and next(asked) > 3:
                raise OSError("disk full")
            return ((x - 0.1 * client) ** 2).sum(-1)

        return fedzo.TorchObjective(function=value, dim=12)

    settings = {UP: "int4", DOWN: "int4", **more}
    found = fedzo.federate(make, num_clients=4, num_rounds=4, settings=settings)
    assert any("disk full" in why for r in found.records for why in r.failures.values())


def test_what_takes_the_place_of_the_last_has_no_feedback() -> None:
    question = q.GradientEstimate(x=torch.randn(50), settings=ZerothOrderConfig())
    replies = Replies(client_ids=[0], tensors={"gradient": torch.randn(1, 50)})
    exchange = Exchange(question=question, client_ids=[0], up=Scheme("sign"))
    packed, states = pack_replies(exchange, replies, [{}])
    assert set(packed.tensors) == {"gradient/codes", "gradient/means"}
    assert states == [{}]


def test_a_block_is_at_most_the_vector() -> None:
    settings = {UP: "sign", "compression.block": 10**10}
    assert run("fedzo", settings=settings, rounds=2).records[-1].value is not None


def test_the_command_takes_it() -> None:
    call = ["run", "quadratic", "--rounds", "2", "--clients", "4", "--json"]
    done = CliRunner().invoke(app, [*call, "--set", f"{UP}=int8", "--set", f"{DOWN}=int8"])
    assert done.exit_code == 0, done.output
    bare = CliRunner().invoke(app, call)
    assert json.loads(done.stdout)["bytes_up"] < json.loads(bare.stdout)["bytes_up"] / 3
