"""The grid in this process: run configs, turns, and each node's own time."""

import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from clients import build_client_app
from fedzo.errors import ConfigError, FedzoWarning, RunError
from fedzo.objectives.objective import Objective, TorchObjective
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from strategies import FedAvg as OurFedAvg
from strategies import FedAvgConfig

X0 = ArrayRecord([np.zeros(2)])


def app_of(work: Callable[[int, Context], object]) -> ClientApp:
    """A stock app: client i adds 2^i once `work` is done."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        work(client, context)
        arrays = [a + 2.0**client for a in message.content["arrays"].to_numpy_ndarrays()]  # type: ignore[union-attr]
        told = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": told})
        return Message(content, reply_to=message)

    return app


def mean_of(grid: InProcessGrid, timeout: float = 3600.0, rounds: int = 1) -> float:
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    result = strategy.start(grid, X0, num_rounds=rounds, timeout=timeout)
    return float(result.arrays.to_numpy_ndarrays()[0][0])


def test_apps_find_their_run_config_and_cannot_change_that_of_others() -> None:
    seen = []

    def work(client: int, context: Context) -> None:
        seen.append((context.run_config["epochs"], context.node_config["region"]))
        context.run_config["epochs"] = 99

    config = {"epochs": 3, "lr": 0.1, "name": "a", "fast": True}
    grid = InProcessGrid(
        app_of(work), num_clients=2, run_config=config, node_config={"region": "x"}
    )
    mean_of(grid, rounds=2)
    assert seen == [(3, "x")] * 4
    assert config["epochs"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"node_config": {"partition-id": 3}}, "node_config cannot set partition-id"),
    ],
)
def test_configs_that_no_run_could_have_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        InProcessGrid(app_of(lambda i, c: None), num_clients=2, **arguments)


def test_the_times_of_nodes_do_not_add_up() -> None:
    grid = InProcessGrid(app_of(lambda i, c: time.sleep(0.15)), num_clients=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_of(grid, timeout=0.4) == 15 / 4


def test_a_node_that_hangs_costs_its_own_answer_only_and_is_told() -> None:
    end = threading.Event()
    grid = InProcessGrid(app_of(lambda i, c: i == 1 and end.wait(20)), num_clients=4)
    begun = time.monotonic()
    with pytest.warns(FedzoWarning, match=r"node 1001 has not answered within its 0\.3 s"):
        assert mean_of(grid, timeout=0.3) == (1 + 4 + 8) / 3
    assert time.monotonic() - begun < 10
    end.set()


def test_nodes_that_hang_do_not_add_up() -> None:
    end = threading.Event()
    grid = InProcessGrid(app_of(lambda i, c: i > 0 and end.wait(20)), num_clients=8)
    begun = time.monotonic()
    with pytest.warns(FedzoWarning):
        assert mean_of(grid, timeout=0.3) == 1.0
    assert time.monotonic() - begun < 5
    end.set()


def test_a_late_answer_is_dropped_and_the_node_goes_on_afterwards() -> None:
    late = threading.Event()
    times = [0.5, 0.0]

    def work(client: int, context: Context) -> None:
        if client == 0:
            time.sleep(times.pop(0))
            late.set()

    grid = InProcessGrid(app_of(work), num_clients=2)
    with pytest.warns(FedzoWarning):
        assert mean_of(grid, timeout=0.2) == 2.0
    assert late.wait(5)
    assert mean_of(grid, timeout=5.0) == 1.5
    assert not grid._answers


def test_nodes_take_turns_so_that_global_generators_give_the_same_bits() -> None:
    def draws(timeout: float | None) -> list[float]:
        drawn: list[float] = []

        def work(client: int, context: Context) -> None:
            state = torch.get_rng_state()
            generator = torch.Generator().manual_seed(client)
            time.sleep(0.01 * (3 - client))
            assert torch.equal(torch.get_rng_state(), state)
            drawn.append(float(torch.rand(1, generator=generator)))

        grid = InProcessGrid(app_of(work), num_clients=3)
        asked = [Message(RecordDict({"arrays": X0}), n, "train") for n in grid.get_node_ids()]
        assert len(list(grid.send_and_receive(asked, timeout=timeout))) == 3
        return drawn

    assert draws(None) == draws(10.0)


def leaves(client: int, context: Context) -> None:
    if client == 1:
        raise SystemExit(3)


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_client_that_exits_answers_with_an_error(timeout: float | None) -> None:
    grid = InProcessGrid(app_of(leaves), num_clients=3)
    asked = [Message(RecordDict({"arrays": X0}), n, "train") for n in grid.get_node_ids()]
    replies = list(grid.send_and_receive(asked, timeout=timeout))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert "called exit(3)" in str(replies[1].error.reason)


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_ctrl_c_ends_all(timeout: float | None) -> None:
    def interrupt(client: int, context: Context) -> None:
        raise KeyboardInterrupt

    grid = InProcessGrid(app_of(interrupt), num_clients=2)
    asked = [Message(RecordDict({"arrays": X0}), n, "train") for n in grid.get_node_ids()]
    with pytest.raises(KeyboardInterrupt):
        grid.send_and_receive(asked, timeout=timeout)


@pytest.mark.slow
def test_a_strategy_that_waits_for_more_nodes_than_there_are_ends_in_a_sentence() -> None:
    grid = InProcessGrid(app_of(lambda i, c: None), num_clients=2)
    strategy = FedAvg(min_available_nodes=3)
    with pytest.raises(RunError, match="waits for more nodes than the 2 of this grid"):
        strategy.start(grid, X0, num_rounds=1)


def test_our_strategy_goes_on_without_a_client_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedzo.runtime.flower.engine.NODE_S", 0.3)
    end = threading.Event()

    def make(client: int) -> Objective:
        def value(x: torch.Tensor) -> torch.Tensor:
            if client == 1:
                end.wait(20)
            return ((x - 1) ** 2).sum(-1)

        return TorchObjective(function=value, dim=2)

    grid = InProcessGrid(build_client_app(make), num_clients=3)
    with pytest.warns(FedzoWarning, match="node 1001"):
        result = OurFedAvg(FedAvgConfig(evaluate_every=0)).start(
            grid, X0, num_rounds=1, timeout=0.2
        )
    assert result.train_metrics_clientapp[1]["clients-answered"] == 2
    end.set()
    grid.limit_nodes(10.0)
    grid.push_messages([])  # waits: torch aborts a process that ends while a thread differentiates


def test_contexts_of_nodes_live_as_long_as_the_grid_with_a_timeout_too() -> None:
    def count(client: int, context: Context) -> None:
        before = context.state.get("seen", ConfigRecord({"n": 0}))
        context.state["seen"] = ConfigRecord({"n": int(before["n"]) + 1})  # type: ignore[index, call-overload]

    grid = InProcessGrid(app_of(count), num_clients=2)
    mean_of(grid, timeout=5.0, rounds=3)
    assert [int(c.state["seen"]["n"]) for c in grid._contexts.values()] == [3, 3]  # type: ignore


def test_turns_share_a_thread_and_a_node_that_hangs_has_one_of_its_own() -> None:
    threads: dict[int, int] = {}
    end = threading.Event()

    def work(client: int, context: Context) -> None:
        threads[client] = threading.get_ident()
        if client == 2:
            end.wait(20)

    grid = InProcessGrid(app_of(work), num_clients=6)
    content = RecordDict({"arrays": X0})
    asked = [Message(content, node, "train") for node in grid.get_node_ids()]
    with pytest.warns(FedzoWarning, match="node 1002"):
        grid.send_and_receive(asked, timeout=0.5)
    assert threads[0] == threads[1] == threads[2]
    assert threads[3] == threads[4] == threads[5] != threads[2]
    end.set()
    grid.limit_nodes(10.0)
    grid.push_messages([])
