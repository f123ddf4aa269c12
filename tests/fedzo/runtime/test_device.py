"""Objectives on a device: questions go there, answers come back, and nothing is moved twice."""

from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from counting_device import PLACE, Device
from torch import Tensor, nn

from clients import make_rules
from fedzo.errors import ConfigError
from fedzo.objectives.objective import TorchObjective
from fedzo.protocol.exchange import Exchange
from fedzo.protocol.question import Question
from fedzo.protocol.questions import FirstOrderSteps, Values
from fedzo.protocol.questions.training_config import FirstOrderConfig
from fedzo.runtime.device import DeviceEnvironment, Mover, on_device
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from scenarios.runs import engines
from scenarios.runs.engines import build_scenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

META = torch.device("meta")
Pair = namedtuple("Pair", "a b")


@dataclass(frozen=True)
class Box:
    tensor: Tensor
    module: nn.Module
    many: list[Tensor]
    pair: Any
    table: dict[str, Tensor]
    name: str = "box"


def test_everything_in_a_box_is_moved_and_the_original_stays() -> None:
    shared = torch.ones(3)
    box = Box(shared, nn.Linear(2, 2), [shared], Pair(shared, 1), {"x": shared})
    moved = Mover(META).move(box)
    found = [moved.tensor, moved.many[0], moved.pair.a, moved.table["x"], moved.module.weight]
    assert all(tensor.device == META for tensor in found)
    assert moved.many[0] is moved.tensor, "what is shared is moved once"
    assert (moved.name, moved.pair.b) == ("box", 1)
    assert shared.device.type == box.module.weight.device.type == "cpu"


def test_a_tensor_is_moved_once_in_a_movers_life() -> None:
    mover, tensor = Mover(META), torch.ones(3)
    assert mover.move(tensor) is mover.move(tensor)


def test_rules_and_objectives_see_tensors_on_the_device_and_the_server_none() -> None:
    seen: list[torch.device] = []

    def make(client: int) -> TorchObjective:
        def value(x: Tensor) -> Tensor:
            seen.append(x.device)
            return x.sum(-1) + client

        return TorchObjective(function=value, dim=3)

    environment = DeviceEnvironment(FunctionEnvironment(make), PLACE)
    engine = InProcessEngine(environment, make_rules())
    ask = Exchange(question=Values(x=torch.zeros(4, 3)), client_ids=[0, 2])
    with Device() as device:
        [replies] = engine.perform([ask], timeout_s=1)
    assert set(seen) == {PLACE}
    assert replies.tensors["values"].tolist() == [[0.0] * 4, [2.0] * 4]
    assert [size for size, kind in device.down if kind.is_floating_point and size > 1] == [8]


def test_what_clients_remember_stays_there() -> None:
    world = build_scenario(make_experiment("quadratic", "scaffold_exact", num_clients=3))
    engine = InProcessEngine(DeviceEnvironment(world, PLACE), make_rules())
    x, config = world.problem(0).initial_x, FirstOrderConfig()
    question = FirstOrderSteps(
        x=x, settings=config, local_steps=1, local_lr=0.1, control=0 * x, renew_control=True
    )
    with Device():
        engine.perform([Exchange(question=question, client_ids=[0, 2])], timeout_s=1)
    states = engine.client_states()
    assert {tensor.device for state in states.values() for tensor in state.values()} == {PLACE}


def test_what_clients_remember_is_written_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_experiment(
        "quadratic",
        "scaffold_exact",
        num_clients=3,
        num_rounds=4,
        settings={"scenario.dim": 16},
    )
    expected = simulate(made)
    monkeypatch.setattr(engines, "on_device", lambda world, _: DeviceEnvironment(world, PLACE))

    def die(snapshot: Any) -> None:
        if snapshot.record.round_index == 2:
            raise KeyboardInterrupt

    with Device():
        with pytest.raises(KeyboardInterrupt):
            simulate(made, out=tmp_path, callbacks=[die])
        resumed = simulate(made, out=tmp_path, resume=True)
    assert torch.equal(resumed.x, expected.x)


@pytest.mark.parametrize("scenario", ["quadratic", "multimodal", "classification", "metric"])
def test_a_scenario_moved_nowhere_gives_the_same_bits(scenario: str) -> None:
    """The wrapper changes nothing: on the CPU as its device, values, gradients and counts agree."""
    small = {"scenario.dataset": "digits"} if scenario == "classification" else {}
    world = build_scenario(make_experiment(scenario, "fedzo", num_clients=3, settings=small))
    moved = DeviceEnvironment(world, torch.device("cpu"))
    x = world.problem(0).initial_x
    asked: list[Question[Any]] = [Values(x=x.unsqueeze(0))]
    if scenario != "metric":
        asked += [FirstOrderSteps(x=x, settings=FirstOrderConfig(), local_steps=2, local_lr=0.1)]
    for question in asked:
        ask = Exchange(question=question, client_ids=[0, 1, 2])
        [here] = InProcessEngine(world, make_rules()).perform([ask], timeout_s=1)
        [there] = InProcessEngine(moved, make_rules()).perform([ask], timeout_s=1)
        assert here.counts == there.counts
        assert not there.failures
        assert all(torch.equal(here.tensors[n], there.tensors[n]) for n in here.tensors)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence() -> None:
    world = FunctionEnvironment(lambda client: TorchObjective(function=torch.sum, dim=2))
    with pytest.raises(ConfigError, match="this process sees no GPU"):
        on_device(world, "cuda")
    assert on_device(world, "auto") is world
    assert on_device(world, "cpu") is world


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_nearly_the_same_values() -> None:
    world = build_scenario(make_experiment("quadratic", "fedzo", num_clients=3))
    moved = on_device(world, "cuda", 0.5)
    question = Values(x=world.problem(0).initial_x[None])
    ask = Exchange(question=question, client_ids=[0, 1, 2])
    [here] = InProcessEngine(world, make_rules()).perform([ask], timeout_s=1)
    [there] = InProcessEngine(moved, make_rules()).perform([ask], timeout_s=1)
    torch.testing.assert_close(here.tensors, there.tensors, rtol=1e-9, atol=0)
