"""The ClientApp: a question that comes twice is answered the same, and a run can be resumed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, RecordDict

from clients import build_client_app, make_rules
from clients.averaging.zeroth_order import ZerothOrderConfig
from clients.states import STATES
from fedzo.objectives.objective import TorchObjective
from fedzo.protocol.exchange import Exchange, Moment
from fedzo.protocol.messages import encode_exchange
from fedzo.protocol.questions import Values, ZerothOrderSteps
from fedzo.runtime.flower.engine import FlowerEngine
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.inprocess import InProcessEngine
from scenarios.runs.engines import build_scenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import build_strategy
from strategies import Outcome, Snapshot, run_rounds
from strategies.core.driver import RunSettings

D = 3
X0 = torch.full((D,), 0.9, dtype=torch.float64)


class World:
    """Objectives that count how often they are asked."""

    def __init__(self) -> None:
        self.asked = 0

    def make(self, client: int) -> TorchObjective:
        def value(x: torch.Tensor) -> torch.Tensor:
            self.asked += 1
            return ((x - 0.1 * client) ** 2).sum(-1)

        return TorchObjective(function=value, dim=D)


def question(round_index: int, index: int = 1) -> Exchange:
    """Ask for residual steps, which go on from the values of the step before."""
    settings = ZerothOrderConfig(estimator="residual", num_directions=2)
    steps = ZerothOrderSteps(x=X0, settings=settings, local_steps=2, local_lr=0.1)
    return Exchange(question=steps, client_ids=[0], seed=5, moment=Moment(0, round_index, index))


def tell(grid: InProcessGrid, exchange: Exchange, run: str = "") -> Message:
    [content] = encode_exchange(exchange, {"name": run, "attempt": "x"})
    [reply] = grid.send_and_receive([Message(content, 1000, exchange.kind)])
    return reply


def bits(records: RecordDict) -> dict[str, Any]:
    """Return everything in some records, arrays as bytes."""
    return {
        name: {key: array.data for key, array in record.items()}
        if isinstance(record, ArrayRecord)
        else dict(record)
        for name, record in records.items()
    }


def memory(grid: InProcessGrid) -> dict[str, Any]:
    return bits(grid._contexts[1000].state)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.name): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("strict", [False, True])
def test_a_question_that_comes_twice_is_answered_the_same(tmp_path: Path, strict: bool) -> None:
    app = build_client_app(World().make, state_dir=tmp_path)
    grid = InProcessGrid(app, num_clients=1, strict=strict)
    for round_index in (1, 2, 3):
        first = tell(grid, question(round_index))
        after, kept = memory(grid), files(tmp_path)
        again = tell(grid, question(round_index))
        assert bits(again.content) == bits(first.content)
        assert (memory(grid), files(tmp_path)) == (after, kept), "its state went on only once"
    assert bits(tell(grid, question(4)).content) != bits(first.content)


def test_a_question_that_comes_twice_late_in_its_round_is_answered_the_same() -> None:
    grid = InProcessGrid(build_client_app(World().make), num_clients=1)
    tell(grid, question(1))
    first, second = tell(grid, question(2, 1)), tell(grid, question(2, 2))
    assert bits(tell(grid, question(2, 1)).content) == bits(first.content)
    assert bits(tell(grid, question(2, 2)).content) == bits(second.content)


def test_what_is_remembered_is_used() -> None:
    """Else these laws could not fail."""
    grid = InProcessGrid(build_client_app(World().make), num_clients=1)
    tell(grid, question(1))
    fresh = InProcessGrid(build_client_app(World().make), num_clients=1)
    assert bits(tell(grid, question(2)).content) != bits(tell(fresh, question(2)).content)


def test_runs_do_not_see_each_others_states(tmp_path: Path) -> None:
    grid = InProcessGrid(build_client_app(World().make, state_dir=tmp_path), num_clients=1)
    tell(grid, question(1), run="a")
    in_b = tell(grid, question(2), run="b")
    fresh = InProcessGrid(build_client_app(World().make), num_clients=1)
    assert bits(in_b.content) == bits(tell(fresh, question(2), run="b").content)
    back = tell(grid, question(2), run="a")
    assert bits(back.content) != bits(in_b.content), "the file of run a is still there"


@pytest.mark.parametrize("run", ["../else", "a/b", "/tmp/x", ".."])
def test_a_run_name_that_is_a_path_is_refused_and_writes_nothing(tmp_path: Path, run: str) -> None:
    app = build_client_app(World().make, state_dir=tmp_path / "states")
    reply = tell(InProcessGrid(app, num_clients=1), question(1), run=run)
    assert reply.has_error()
    assert "may hold only letters" in str(reply.error.reason)
    assert files(tmp_path) == {}


def test_a_damaged_question_asks_no_objective_and_changes_no_state() -> None:
    world = World()
    grid = InProcessGrid(build_client_app(world.make), num_clients=1)
    [content] = encode_exchange(question(1))
    content["shared"] = ArrayRecord([np.zeros(D)])
    [reply] = grid.send_and_receive([Message(content, 1000, "train.zeroth_order")])
    assert "MessageError: damaged on the way" in str(reply.error.reason)
    assert (world.asked, memory(grid)) == (0, {})


def test_a_rule_without_memory_leaves_none(tmp_path: Path) -> None:
    grid = InProcessGrid(build_client_app(World().make, state_dir=tmp_path), num_clients=1)
    ask = Exchange(question=Values(x=X0.unsqueeze(0)), client_ids=[0])
    assert not tell(grid, ask).has_error()
    assert STATES not in grid._contexts[1000].state
    assert files(tmp_path) == {}


def test_an_answer_names_the_exchange_that_it_answers() -> None:
    grid = InProcessGrid(build_client_app(World().make), num_clients=1)
    content = tell(grid, question(4, 2)).content
    assert content["seal"]["answers"] == question(4, 2).moment.token == "0.4.2"  # type: ignore[index]


class Twice(InProcessGrid):
    """Delivers every message twice; the first answer is lost."""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        for message in messages:
            self._call(message, message.metadata.dst_node_id)
        return list(super().push_messages(messages))


SMALL = {"client.num_features": 6, "strategy.local_steps": 1}
STATEFUL: list[Any] = [
    pytest.param("fedzo", {"client.estimator": "residual"}, id="fedzo"),
    pytest.param("scaffold2", {}, id="scaffold2", marks=pytest.mark.slow),  # as scaffold1
    pytest.param("fzoos", {"strategy.variant": "on_client"}, id="on_client"),
]
SHARED: list[Any] = [
    pytest.param(name, more, id=name)
    for name, more in (
        ("scaffold1", {"client.estimator": "residual"}),
        ("fzoos", {"strategy.variant": "paper", **SMALL}),
    )
]
WHOLE, CUT, KILLED = 4, 2, 3


def run(
    name: str,
    more: dict[str, Any],
    grid: type[InProcessGrid] | None,
    state_dir: Path | None = None,
    *,
    rounds: int = WHOLE,
    resume: Snapshot | None = None,
) -> tuple[Outcome, dict[int, Snapshot]]:
    """Run a strategy on a Flower grid of fresh clients, or on none; return its snapshots too."""
    given = {"scenario.dim": 4, "strategy.participation": 0.7, **more}
    made = make_experiment("quadratic", name, num_clients=3, settings=given)
    scenario, taken = build_scenario(made), {}
    engine: Any = InProcessEngine(scenario, make_rules(), chunk_size=1)
    if grid is not None:
        app = build_client_app(scenario, state_dir=state_dir)
        engine = FlowerEngine(grid(app, num_clients=3), poll_s=0.001, run_name="run-1")

    def take(snapshot: Snapshot) -> None:
        taken[snapshot.record.round_index] = snapshot

    outcome = run_rounds(
        build_strategy(made),
        engine,
        scenario.problem(0),
        RunSettings(num_clients=3, num_rounds=rounds),
        callbacks=[take],
        resume=resume,
    )
    assert not any(record.failures for record in outcome.records)
    return outcome, taken


@pytest.mark.more
@pytest.mark.parametrize(("name", "more"), [*STATEFUL, *SHARED])
def test_messages_delivered_twice_change_no_bit(
    name: str, more: dict[str, Any], tmp_path: Path
) -> None:
    twice, _ = run(name, more, Twice, tmp_path)
    assert torch.equal(twice.state.x, run(name, more, None)[0].state.x)


@pytest.mark.more
@pytest.mark.parametrize(("name", "more"), [*STATEFUL, *SHARED])
def test_a_run_resumed_after_its_nodes_were_lost_gives_the_same_bits(
    name: str, more: dict[str, Any], tmp_path: Path
) -> None:
    """The checkpoint is of round 2, the clients have gone on to round 3, the nodes are new."""
    whole, _ = run(name, more, InProcessGrid)
    _, taken = run(name, more, InProcessGrid, tmp_path, rounds=KILLED)
    resumed, _ = run(name, more, InProcessGrid, tmp_path, resume=taken[CUT])
    assert torch.equal(resumed.state.x, whole.state.x)


def test_a_run_resumed_without_its_states_gives_other_bits() -> None:
    name, more = "fedzo", {"client.estimator": "residual"}
    whole, taken = run(name, more, InProcessGrid)
    resumed, _ = run(name, more, InProcessGrid, resume=taken[CUT])
    assert not torch.equal(resumed.state.x, whole.state.x)


def test_a_run_name_that_was_damaged_on_the_way_is_refused() -> None:
    """Else the client starts afresh under a name that nobody uses, and answers."""
    grid = InProcessGrid(build_client_app(World().make), num_clients=1)
    engine = FlowerEngine(grid, poll_s=0.001, run_name="run-1")
    engine.wait_for_clients(1, 1.0)
    [(_, message)] = engine._messages(question(1))
    message.content["run"]["name"] = "run-0"  # type: ignore[index]
    [reply] = grid.send_and_receive([message])
    assert reply.has_error()
