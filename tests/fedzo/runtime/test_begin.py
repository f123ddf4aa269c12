"""Clients that begin beforehand: on Ray and on a Flower grid, done, late, dead or forgotten."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import ray
import torch
from flwr.app import ArrayRecord, ConfigRecord
from ray import cloudpickle
from torch import Tensor

from clients import build_client_app, make_rules
from fedzo.errors import ConfigError, RunError
from fedzo.objectives.objective import TorchObjective
from fedzo.protocol.answers import NO_ANSWER
from fedzo.protocol.exchange import Exchange, Moment, Replies
from fedzo.protocol.questions import Values
from fedzo.runtime.engine_configs import RayConfig
from fedzo.runtime.flower.engine import FlowerEngine
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from fedzo.runtime.ray.pool import RayEngine
from strategies.averaging.fedbuff import FedBuff, FedBuffConfig
from strategies.core.wave_config import WaveConfig

pytestmark = pytest.mark.xdist_group("ray")
cloudpickle.register_pickle_by_value(sys.modules[__name__])

D = 4
X = torch.full((D,), 0.5, dtype=torch.float64)


def quick(client: int) -> TorchObjective:
    return TorchObjective(function=lambda x: ((x - client) ** 2).sum(-1), dim=D)


def slow(client: int) -> TorchObjective:
    """Client 1 takes a minute where x is positive, client 2 half a second, client 3 dies."""

    def value(x: Tensor) -> Tensor:
        import os
        import time

        if bool((x > 0).all()):
            time.sleep({1: 60.0, 2: 0.5}.get(client, 0.0))
            if client == 3:
                os._exit(1)
        return x.sum(-1) + client

    return TorchObjective(function=value, dim=D)


def about(x: Tensor, clients: list[int], round_index: int = 1) -> Exchange:
    question = Values(x=x.unsqueeze(0))
    return Exchange(question=question, client_ids=clients, moment=Moment(0, round_index, 0))


def ended(engine: Any, exchange: Exchange, timeout_s: float = 60.0) -> dict[int, Replies]:
    """Return what each client of an exchange has done, in the order in which they were done."""
    begun = {*engine.begin(exchange, timeout_s=timeout_s)}
    told: dict[int, Replies] = {}
    for place, client in enumerate(exchange.client_ids):
        if client not in begun:
            [told[client]] = engine.perform([exchange.select([place])], timeout_s=1.0)
    while begun:
        token, client = engine.await_one()
        assert token == exchange.moment.token
        place = list(exchange.client_ids).index(client)
        [told[client]] = engine.perform([exchange.select([place])], timeout_s=1.0)
        begun.remove(client)
    return told


def values(told: dict[int, Replies]) -> dict[int, float]:
    return {
        client: float(replies.tensors["values"]) for client, replies in sorted(told.items())
        if replies.client_ids
    }  # fmt: skip


@contextmanager
def on_ray(make: Callable[[int], Any]) -> Iterator[RayEngine]:
    world = FunctionEnvironment(make)
    config = RayConfig(cluster_cpus=2, num_actors=2, retries=0)
    engine = RayEngine(lambda: world, make_rules, config)
    try:
        yield engine
    finally:
        engine.close()
        ray.shutdown()


def on_a_grid(clients: int = 5) -> FlowerEngine:
    world = FunctionEnvironment(quick)
    engine = FlowerEngine(InProcessGrid(build_client_app(world), num_clients=clients), poll_s=0.001)
    engine.wait_for_clients(clients, 5.0)
    return engine


def test_on_a_grid_answers_are_those_of_clients_asked_together() -> None:
    asked = about(X, [0, 2, 3])
    [whole] = InProcessEngine(FunctionEnvironment(quick), make_rules()).perform(
        [asked], timeout_s=1
    )
    told = ended(on_a_grid(), asked)
    assert list(values(told).values()) == whole.tensors["values"].flatten().tolist()
    assert all(replies.counts["queries"][client] == 1 for client, replies in told.items())


def test_on_a_grid_who_is_not_there_is_told_at_once() -> None:
    engine = on_a_grid(3)
    told = ended(engine, about(X, [1, 7]))
    assert values(told) == {1: 1.0}
    assert "no node has this partition-id" in told[7].failures[7]


def test_on_a_grid_clients_that_have_begun_do_not_answer_other_questions() -> None:
    engine = on_a_grid()
    engine.begin(about(X, [0, 1]), timeout_s=3.0)
    [judged] = engine.perform([about(2 * X, [0, 1, 2], round_index=5)], timeout_s=3.0)
    assert judged.tensors["values"].flatten().tolist() == [4.0, 0.0, 4.0]
    token, client = engine.await_one()
    [told] = engine.perform([about(X, [client])], timeout_s=3.0)
    assert token == "0.1.0"
    assert float(told.tensors["values"]) == 4 * (0.5 - client) ** 2


def test_on_a_grid_a_strategy_that_does_not_wait_starts_as_flower_has_it() -> None:
    grid = InProcessGrid(build_client_app(FunctionEnvironment(quick)), num_clients=6)
    config = FedBuffConfig(waves=WaveConfig(buffer=2))
    result = FedBuff(config).start(
        grid, ArrayRecord([X.numpy()]), num_rounds=20, train_config=ConfigRecord({"seed": 1})
    )
    first, last = (result.evaluate_metrics_clientapp[r]["value"] for r in (0, 20))
    least = 4 * torch.arange(6.0).var(correction=0).item()
    assert last - least < 0.5 * (first - least)  # type: ignore[operator]


@pytest.mark.slow
def test_on_ray_the_late_and_the_dead_fail_alone() -> None:
    with on_ray(slow) as engine:
        begun = time.monotonic()
        told = ended(engine, about(X, [0, 1, 2, 3]), timeout_s=5.0)
        assert time.monotonic() - begun < 30
        assert values(told) == {0: 2.0, 2: 4.0}
        assert told[1].failures == {1: NO_ANSWER}
        assert "actor died" in told[3].failures[3]
        after = ended(engine, about(-X, [0, 1, 2, 3], round_index=2))
        assert values(after) == {0: -2.0, 1: -1.0, 2: 0.0, 3: 1.0}


@pytest.mark.slow
def test_on_ray_others_are_asked_first_and_what_is_forgotten_is_not_heard() -> None:
    with on_ray(slow) as engine:
        engine.begin(about(X, [2]), timeout_s=30.0)
        engine.begin(about(-X, [4, 5, 6], round_index=2), timeout_s=30.0)
        [judged] = engine.perform([about(-X, [0], round_index=3)], timeout_s=10.0)
        assert judged.tensors["values"].flatten().tolist() == [-2.0]
        engine.restore_client_states({})
        told = ended(engine, about(-X, [2, 4], round_index=4))
        assert values(told) == {2: 0.0, 4: 2.0}


def test_on_a_grid_nobody_is_waited_for_who_has_not_begun() -> None:
    engine = on_a_grid(2)
    assert list(engine.begin(about(X, [0, 5]), timeout_s=3.0)) == [0]
    [absent] = engine.perform([about(X, [5])], timeout_s=3.0)
    assert 5 in absent.failures
    assert engine.await_one() == ("0.1.0", 0)
    engine.perform([about(X, [0])], timeout_s=3.0)
    with pytest.raises(RunError, match="nobody has begun"):
        engine.await_one()


def broken(client: int) -> TorchObjective:
    """Client 1's settings are wrong where x is positive, which ends a perform."""

    def value(x: Tensor) -> Tensor:
        import time

        if client and bool((x > 0).all()):
            time.sleep(0.3)
            if client == 1:
                from fedzo.errors import ConfigError

                raise ConfigError("client.mu=0 must be positive")
        return x.sum(-1) + client

    return TorchObjective(function=value, dim=D)


@pytest.mark.slow
def test_on_ray_what_a_perform_that_raised_has_left_is_not_heard_later() -> None:
    with on_ray(broken) as engine:
        engine._config = dataclasses.replace(engine._config, chunk_size=1)
        with pytest.raises(ConfigError, match=r"client\.mu=0"):
            engine.perform([about(X, [1, 0, 2, 3])], timeout_s=60.0)
        [after] = engine.perform([about(-X, [0, 1, 2, 3], round_index=2)], timeout_s=60.0)
        assert after.tensors["values"].flatten().tolist() == [-2.0, -1.0, 0.0, 1.0]
        assert engine.client_states() == {}


@pytest.mark.slow
def test_on_ray_who_is_done_in_time_is_heard_however_late_the_server_looks() -> None:
    with on_ray(slow) as engine:
        engine.perform([about(-X, [0, 2])], timeout_s=60.0)  # both actors are up
        engine.begin(about(X, [2, 0], round_index=2), timeout_s=1.5)
        time.sleep(2.5)
        told = {}
        for _ in range(2):
            _, client = engine.await_one()
            [told[client]] = engine.perform([about(X, [client], round_index=2)], timeout_s=1.0)
        assert values(told) == {0: 2.0, 2: 4.0}
        states = engine.client_states()
        engine.restore_client_states(states)
        assert engine.client_states() == states
