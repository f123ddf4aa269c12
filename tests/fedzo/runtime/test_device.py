"""Objectives on a device: points go there, values come back, and nothing is moved twice."""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
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
from scenarios.runs.engines import build_scenario
from scenarios.runs.experiment import make_experiment

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


def test_points_go_to_the_device_and_values_come_back() -> None:
    seen: list[torch.device] = []

    def make(client: int) -> TorchObjective:
        def value(x: Tensor) -> Tensor:
            seen.append(x.device)
            return torch.full(x.shape[:-1], float(client))

        return TorchObjective(function=value, dim=3)

    environment = DeviceEnvironment(FunctionEnvironment(make), META)
    engine = InProcessEngine(environment, make_rules())
    ask = Exchange(question=Values(x=torch.zeros(4, 3)), client_ids=[0, 2])
    cohort = environment.cohort([0, 2], 0)
    assert (cohort.num_clients, cohort.dim, cohort.failures) == (2, 3, {})
    [replies] = engine.perform([ask], timeout_s=1)
    assert set(seen) == {META}
    assert replies.failures, "a looped cohort of values on the wrong device fails client by client"


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
