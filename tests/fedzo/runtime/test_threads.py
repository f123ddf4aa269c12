"""One thread of torch, whoever calls, and afterwards as many as before."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from clients import build_client_app
from fedzo.errors import ConfigError, RunError
from fedzo.objectives.objective import Objective, TorchObjective
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.threads import torch_threads
from scenarios import federate
from scenarios.attacks.one_call import attack
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from strategies import FedAvg, FedAvgConfig


class Watched:
    """Notes with how many threads its objectives are asked."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def make(self, client: int) -> Objective:
        def value(x: torch.Tensor) -> torch.Tensor:
            self.seen.add(torch.get_num_threads())
            return (x**2).sum(-1)

        return TorchObjective(function=value, dim=2)


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    with torch_threads(3):
        yield
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_gradients_are_had_wherever_a_run_is_started(around: Any) -> None:
    def go() -> float | None:
        square = TorchObjective(function=lambda x: x.square().sum(-1), dim=2)
        start = torch.ones(2)
        made = federate(
            lambda _: square, num_clients=2, num_rounds=2, strategy="fedavg", initial_x=start
        )
        return made.final_value

    with around():
        told = go()
        assert not torch.is_grad_enabled()
    assert told == go()


def test_victims_are_asked_as_the_caller_computes() -> None:
    net = torch.nn.Linear(4, 3)
    images = np.random.default_rng(0).random((6, 1, 2, 2)).astype(np.float32)

    def scores(x: np.ndarray) -> np.ndarray:
        return net(torch.as_tensor(x).reshape(len(x), -1)).numpy()  # type: ignore[no-any-return]

    with torch.no_grad():
        found = attack(scores, images, scores(images).argmax(1), radius=0.1, query_budget=5)
    assert sum(one.queries for one in found.found) > 0


@pytest.mark.parametrize(("given", "used"), [({}, 1), ({"threads": 2}, 2)])
def test_federate_sets_threads_and_restores_them(given: dict[str, int], used: int) -> None:
    watched = Watched()
    federate(watched.make, num_clients=2, num_rounds=1, **given)  # type: ignore[arg-type]
    assert watched.seen == {used}
    assert torch.get_num_threads() == 3


def test_threads_are_restored_when_a_run_fails_or_is_stopped() -> None:
    def stop(snapshot: object) -> None:
        raise KeyboardInterrupt

    for callbacks, error in (([stop], KeyboardInterrupt), ([], ConfigError)):
        with pytest.raises(error):
            federate(
                Watched().make,
                num_clients=2,
                num_rounds=1,
                initial_x=torch.zeros(2 if callbacks else 5),
                callbacks=callbacks,
            )
        assert torch.get_num_threads() == 3


def test_a_run_inside_a_run_leaves_the_outer_one_its_threads() -> None:
    inner, outer = Watched(), []

    def again(snapshot: object) -> None:
        federate(inner.make, num_clients=1, num_rounds=1, threads=2)
        outer.append(torch.get_num_threads())

    federate(Watched().make, num_clients=1, num_rounds=1, callbacks=[again])
    assert (inner.seen, set(outer)) == ({2}, {1})


def test_the_nodes_of_a_grid_compute_with_one_thread_or_as_many_as_they_say() -> None:
    watched = Watched()
    app = build_client_app(watched.make)
    for more, used in (({}, 1), ({"threads": 2}, 2)):
        grid = InProcessGrid(app, num_clients=2, node_config=more)
        FedAvg(FedAvgConfig()).start(grid, arrays(), num_rounds=1)
        assert watched.seen == {used}
        watched.seen.clear()
    grid = InProcessGrid(app, num_clients=2, node_config={"threads": 0})
    with pytest.raises(RunError, match="threads=0 must be a whole number"):
        FedAvg(FedAvgConfig()).start(grid, arrays(), num_rounds=1)


def arrays() -> ArrayRecord:
    return ArrayRecord([torch.zeros(2).numpy()])


def test_a_client_that_changes_the_number_changes_it_for_nobody_else() -> None:
    app = ClientApp()
    seen: list[int] = []

    @app.query("greedy")
    def greedy(message: Message, context: Any) -> Message:
        seen.append(torch.get_num_threads())
        torch.set_num_threads(2)
        return Message(RecordDict(), reply_to=message)

    grid = InProcessGrid(app, num_clients=3)
    asked = [Message(RecordDict(), node, "query.greedy") for node in grid.get_node_ids()]
    for timeout in (None, 5.0):
        assert len(list(grid.send_and_receive(asked, timeout=timeout))) == 3
    assert seen == [3] * 6


def test_no_threads_are_refused() -> None:
    experiment = make_experiment("quadratic", "fedzo", num_rounds=1)
    with pytest.raises(ConfigError, match="threads=0 must be at least 1"):
        simulate(experiment, threads=0)
