"""Flower in this process: its own strategies on our grid, our strategy on any grid, same bits."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    MultiKrum,
    Strategy,
)

from clients import build_client_app, make_rules
from clients.averaging.zeroth_order import ZerothOrderConfig
from fedzo.errors import ConfigError, RunError
from fedzo.objectives.objective import CallableObjective, TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.exchange import Exchange
from fedzo.protocol.questions import Values
from fedzo.protocol.seals import seal_answer
from fedzo.runtime.flower.engine import FlowerEngine
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from strategies import FedAvg as OurFedAvg
from strategies import FedAvgConfig, run_rounds
from strategies.core.driver import RunSettings

TARGET = np.array([1.0, -2.0, 3.0])


def ordinary_app(liars: tuple[int, ...] = ()) -> ClientApp:
    """A stock ClientApp: half a step towards its own target; liars send rubbish."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        [x] = message.content["arrays"].to_numpy_ndarrays()  # type: ignore[union-attr]
        moved = np.full(3, 1e3) if client in liars else x + 0.5 * (TARGET + 0.01 * client - x)
        counted = context.state.get("seen", MetricRecord({"rounds": 0}))
        context.state["seen"] = MetricRecord({"rounds": counted["rounds"] + 1})  # type: ignore
        metrics = MetricRecord({"num-examples": 1, "rounds": context.state["seen"]["rounds"]})  # type: ignore
        record = RecordDict({"arrays": ArrayRecord([moved]), "metrics": metrics})
        return Message(record, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        [x] = message.content["arrays"].to_numpy_ndarrays()  # type: ignore[union-attr]
        loss = float(np.square(x - TARGET).sum())
        record = RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": loss})})
        return Message(record, reply_to=message)

    return app


ROBUST: dict[str, Callable[[], Strategy]] = {
    "FedMedian": lambda: FedMedian(fraction_train=1.0),
    "FedTrimmedAvg": lambda: FedTrimmedAvg(fraction_train=1.0, beta=0.34),
    "MultiKrum": lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=4),
}
TRUSTING: dict[str, Callable[[], Strategy]] = {
    "FedAvg": FedAvg,
    "FedAdam": lambda: FedAdam(eta=0.5, tau=0.1),
}


def distance(strategy: Strategy, liars: tuple[int, ...], *, strict: bool) -> float:
    grid = InProcessGrid(ordinary_app(liars), num_clients=6, strict=strict)
    result = strategy.start(grid, ArrayRecord([np.zeros(3)]), num_rounds=9)
    assert len(result.evaluate_metrics_clientapp) == 9
    [x] = result.arrays.to_numpy_ndarrays()
    return float(np.abs(x - TARGET).max())


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", [*TRUSTING, *ROBUST])
def test_unmodified_flower_strategies_run(name: str, strict: bool) -> None:
    strategy = {**TRUSTING, **ROBUST}[name]()
    assert distance(strategy, (), strict=strict) < 1.0  # from 3.0


@pytest.mark.parametrize("name", ROBUST)
def test_robust_ones_survive_a_liar_that_breaks_the_mean(name: str) -> None:
    assert distance(ROBUST[name](), (4,), strict=False) < 0.6
    assert distance(FedAvg(), (4,), strict=False) > 100


def test_each_node_keeps_its_own_context() -> None:
    grid = InProcessGrid(ordinary_app(), num_clients=3)
    result = FedAvg().start(grid, ArrayRecord([np.zeros(3)]), num_rounds=4)
    rounds = [m["rounds"] for m in result.train_metrics_clientapp.values()]
    assert rounds == [1, 2, 3, 4]


def test_a_client_that_raises_answers_with_an_error() -> None:
    app = ClientApp()

    @app.query("boom")
    def boom(message: Message, context: Context) -> Message:
        raise ValueError("out of ink")

    grid = InProcessGrid(app, num_clients=2)
    node = next(iter(grid.get_node_ids()))
    [reply] = grid.send_and_receive([Message(RecordDict(), node, "query.boom")])
    assert reply.has_error()
    assert "out of ink" in str(reply.error.reason)
    [unknown] = grid.send_and_receive([Message(RecordDict(), node, "query.other")])
    assert unknown.has_error()


def test_messages_to_nobody_get_no_identity_and_no_answer() -> None:
    grid = InProcessGrid(ordinary_app(), num_clients=1)
    ids = list(grid.push_messages([Message(RecordDict(), 77, "train")]))
    assert ids == [""]
    assert list(grid.pull_messages(ids)) == []


def test_what_a_client_edits_stays_with_it() -> None:
    app = ClientApp()

    @app.query("vandal")
    def vandal(message: Message, context: Context) -> Message:
        message.content["config"]["a"] = 99  # type: ignore[index]
        return Message(RecordDict({"config": ConfigRecord({"b": 1})}), reply_to=message)

    grid = InProcessGrid(app, num_clients=2)
    shared = ConfigRecord({"a": 1})
    nodes = list(grid.get_node_ids())
    content = RecordDict({"config": shared})
    replies = list(grid.send_and_receive([Message(content, n, "query.vandal") for n in nodes]))
    assert len(replies) == 2
    assert not any(reply.has_error() for reply in replies)
    assert shared["a"] == 1


def test_a_grid_needs_a_client() -> None:
    with pytest.raises(ConfigError, match="num_clients=0 must be at least 1"):
        InProcessGrid(ordinary_app(), num_clients=0)


def make(client: int) -> TorchObjective:
    def value(x: torch.Tensor) -> torch.Tensor:
        return ((x - 0.1 * client) ** 2).sum(-1)

    return TorchObjective(function=value, dim=8, lower=-1.0, upper=1.0)


X0 = torch.full((8,), 0.9, dtype=torch.float64)


def strategy(estimator: str) -> OurFedAvg:
    client = ZerothOrderConfig(num_directions=3, estimator=estimator)  # type: ignore[arg-type]
    return OurFedAvg(FedAvgConfig(participation=0.5, local_lr=0.05), client=client)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("estimator", ["forward", "residual"])
def test_our_strategy_gives_the_same_bits_on_a_flower_grid(strict: bool, estimator: str) -> None:
    """Messages, protobuf, ClientApp and Context state against stacked tensors in one process."""
    engine = InProcessEngine(FunctionEnvironment(make), make_rules(), chunk_size=1)
    settings = RunSettings(num_clients=4, num_rounds=3, seed=3)
    problem = OpenProblem(initial_x=X0, lower=-1.0, upper=1.0)
    ours = run_rounds(strategy(estimator), engine, problem, settings)
    grid = InProcessGrid(build_client_app(make), num_clients=4, strict=strict)
    theirs = strategy(estimator).start(
        grid,
        ArrayRecord({"x": Array(X0.numpy())}),
        num_rounds=3,
        train_config=ConfigRecord({"seed": 3, "lower": -1.0, "upper": 1.0}),
    )
    assert np.array_equal(theirs.arrays["x"].numpy(), ours.state.x.numpy())
    assert not np.array_equal(X0.numpy(), ours.state.x.numpy())
    last = ours.records[-1]
    assert theirs.train_metrics_clientapp[3]["queries"] == last.queries
    assert theirs.evaluate_metrics_clientapp[3]["value"] == last.value


def test_start_keeps_shapes_and_calls_the_servers_evaluation() -> None:
    grid = InProcessGrid(build_client_app(make), num_clients=2)
    arrays = ArrayRecord({"a": Array(np.zeros((2, 3))), "b": Array(np.ones(2))})
    seen = []

    def central(round_index: int, now: ArrayRecord) -> MetricRecord:
        seen.append(round_index)
        return MetricRecord({"norm": float(np.abs(now["a"].numpy()).sum())})

    result = strategy("forward").start(grid, arrays, num_rounds=2, evaluate_fn=central)
    assert seen == [0, 1, 2]
    assert {name: tuple(a.shape) for name, a in result.arrays.items()} == {"a": (2, 3), "b": (2,)}
    assert result.evaluate_metrics_serverapp[2]["norm"] > 0


def test_starting_on_an_empty_grid_is_an_error() -> None:
    class Empty(InProcessGrid):
        def get_node_ids(self) -> list[int]:
            return []

    grid = Empty(build_client_app(make), num_clients=1)
    with pytest.raises(RunError, match=r"0 clients are connected to the grid after 0\.1 s"):
        strategy("forward").start(grid, ArrayRecord([X0.numpy()]), timeout=0.1)


def test_wrapping_our_strategy_is_refused_in_a_sentence() -> None:
    grid = InProcessGrid(build_client_app(make), num_clients=1)
    with pytest.raises(RunError, match=r"call start\(grid"):
        strategy("forward").configure_train(1, ArrayRecord(), ConfigRecord(), grid)


def test_failures_and_silence_come_back_as_failures() -> None:
    def broken(client: int) -> CallableObjective:
        def ask(x: np.ndarray) -> float:
            raise OSError("offline")

        return CallableObjective(function=ask, dim=8)

    def choose(client: int):  # type: ignore[no-untyped-def]
        return broken(client) if client == 1 else make(client)

    class Forgetful(InProcessGrid):
        """Loses every answer of client 2."""

        def pull_messages(self, message_ids):  # type: ignore[no-untyped-def]
            messages = super().pull_messages(message_ids)
            lost = 1002
            return [m for m in messages if m.metadata.src_node_id != lost or "values" not in str(m)]

    grid = InProcessGrid(build_client_app(choose), num_clients=3)
    engine = FlowerEngine(grid, poll_s=0.001)
    question = Exchange(question=Values(x=X0.unsqueeze(0)), client_ids=[0, 1, 7])
    [replies] = engine.perform([question], timeout_s=0.1)
    assert list(replies.client_ids) == [0]
    assert replies.failures[1].startswith("OSError: offline")  # and where, in a user's file
    assert replies.failures[7] == "no node has this partition-id"
    lossy = FlowerEngine(Forgetful(build_client_app(make), num_clients=3), poll_s=0.001)
    ask = Exchange(question=Values(x=X0.unsqueeze(0)), client_ids=[0, 2])
    [some] = lossy.perform([ask], timeout_s=0.05)
    assert list(some.client_ids) == [0]
    assert some.failures == {2: "no answer in time"}


def test_a_node_without_partition_id_says_what_to_do() -> None:
    grid = InProcessGrid(build_client_app(make), num_clients=1)
    grid._contexts[1000].node_config.clear()
    [reply] = grid.send_and_receive([Message(RecordDict(), 1000, "query.whoami")])
    assert "--node-config" in str(reply.error.reason)


def test_late_nodes_are_waited_for() -> None:
    class Late(InProcessGrid):
        calls = 0

        def get_node_ids(self) -> list[int]:
            self.calls += 1
            return list(super().get_node_ids())[: max(0, self.calls - 2)]

    grid = Late(build_client_app(make), num_clients=3)
    result = strategy("forward").start(grid, ArrayRecord([X0.numpy()]), num_rounds=1, timeout=5)
    assert result.train_metrics_clientapp[1]["clients-answered"] == 3


def test_the_box_is_given_by_the_configuration() -> None:
    grid = InProcessGrid(build_client_app(make), num_clients=2)
    config = ConfigRecord({"lower": -0.5, "upper": 0.5, "query_budget": 40})
    result = strategy("forward").start(
        grid, ArrayRecord([X0.numpy()]), num_rounds=9, train_config=config
    )
    [x] = result.arrays.to_numpy_ndarrays()
    assert float(np.abs(x).max()) <= 0.5
    assert max(int(m["queries"]) for m in result.train_metrics_clientapp.values()) <= 40  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"train_config\.sed; did you mean train_config\.seed"):
        strategy("forward").start(
            grid, ArrayRecord([X0.numpy()]), train_config=ConfigRecord({"sed": 1})
        )


def test_replies_that_do_not_fit_are_rejected_with_the_reason() -> None:
    class Crooked(InProcessGrid):
        """Client 1 answers in another shape."""

        def pull_messages(self, message_ids):  # type: ignore[no-untyped-def]
            for message in super().pull_messages(message_ids):
                if message.metadata.src_node_id == 1001 and "tensors" in message.content:
                    message.content["tensors"] = ArrayRecord({"values": Array(np.zeros(7))})
                    seal_answer(message.content, "0.0.0")
                yield message

    engine = FlowerEngine(Crooked(build_client_app(make), num_clients=4), poll_s=0.001)
    ask = Exchange(question=Values(x=X0.unsqueeze(0)), client_ids=range(4))
    [replies] = engine.perform([ask], timeout_s=5)
    assert list(replies.client_ids) == [0, 2, 3]
    assert replies.failures[1].startswith("malformed reply: values has shape [7] and")


def test_a_client_app_that_returns_nothing_or_fails_changes_no_state() -> None:
    app = ClientApp()

    @app.query("nothing")
    def nothing(message: Message, context: Context) -> Message:
        context.state["seen"] = ConfigRecord({"a": 1})
        return None  # type: ignore[return-value]

    grid = InProcessGrid(app, num_clients=1)
    [reply] = grid.send_and_receive([Message(RecordDict(), 1000, "query.nothing")])
    assert "not a Message" in str(reply.error.reason)
    assert reply.error.code == 2
    assert "seen" not in grid._contexts[1000].state
