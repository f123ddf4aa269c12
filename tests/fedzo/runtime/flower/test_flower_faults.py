"""A Flower grid that loses, delays and refuses messages, and whose nodes come and go."""

from collections.abc import Iterable, Sequence

import torch
from flwr.app import Error, Message

from clients import build_client_app, make_rules
from clients.averaging.zeroth_order import ZerothOrderConfig
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.answers import NO_ANSWER
from fedzo.protocol.exchange import Exchange, Moment, Replies
from fedzo.protocol.questions import Values
from fedzo.runtime.flower.engine import NO_NODE, NOT_TAKEN, FlowerEngine
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from strategies import FedAvg, FedAvgConfig, Outcome, run_rounds
from strategies.core.driver import RunSettings

D, N = 3, 3
X0 = torch.full((D,), 0.9, dtype=torch.float64)


def make(client: int) -> TorchObjective:
    return TorchObjective(function=lambda x: ((x - 0.1 * client) ** 2).sum(-1), dim=D)


class Unreliable(InProcessGrid):
    """Node 1000 + i is client i. Answers of `held` nodes wait; others are refused or away.

    An answer is handed out as often as it is asked for.
    """

    def __init__(self) -> None:
        super().__init__(build_client_app(make), num_clients=N)
        self.held: set[int] = set()
        self.refused: set[int] = set()
        self.away: set[int] = set()

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in super().get_node_ids() if node not in self.away]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [
            "" if m.metadata.dst_node_id in self.refused else self._deliver(m) for m in messages
        ]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        ready = {i for i, a in self._answers.items() if a.metadata.src_node_id not in self.held}
        found = [self._answers[identity] for identity in ready & set(message_ids)]
        return sorted(found, key=lambda message: message.metadata.src_node_id)

    def moves(self, old: int, new: int) -> None:
        """Let a node vanish and return under another number, with its memory."""
        self._contexts[new] = self._contexts.pop(old)
        self._contexts[new].node_id = new


def engine_on(grid: InProcessGrid) -> FlowerEngine:
    engine = FlowerEngine(grid, poll_s=0.001, whoami_s=0.02)
    engine.wait_for_clients(1, 1.0)
    return engine


def ask(engine: FlowerEngine, round_index: int, clients: Sequence[int] = range(N)) -> Replies:
    question, moment = Values(x=X0.unsqueeze(0)), Moment(0, round_index)
    exchange = Exchange(question=question, client_ids=clients, moment=moment)
    [replies] = engine.perform([exchange], timeout_s=0.02)
    return replies


def test_a_late_answer_is_counted_once_and_not_used() -> None:
    grid = Unreliable()
    engine = engine_on(grid)
    grid.held = {1001}
    assert ask(engine, 1).failures == {1: NO_ANSWER}
    grid.held = set()
    second, third = ask(engine, 2), ask(engine, 3)
    assert (second.late, second.duplicates, second.failures) == (1, 0, {})
    assert (third.late, third.duplicates, third.failures) == (0, 0, {})


def test_late_answers_of_clients_who_are_not_asked_are_counted_once() -> None:
    grid = Unreliable()
    engine = engine_on(grid)
    grid.held = {1000, 1001}
    ask(engine, 1)
    grid.held = set()
    replies = ask(engine, 2, [2])
    assert (list(replies.client_ids), replies.late) == ([2], 2)
    assert ask(engine, 3).late == 0


def test_a_late_answer_is_counted_once_in_a_call_of_two_exchanges() -> None:
    grid = Unreliable()
    engine = engine_on(grid)
    grid.held = {1002}
    ask(engine, 1)
    grid.held = set()
    question, moment = Values(x=X0.unsqueeze(0)), Moment(0, 2)
    both = [Exchange(question=question, client_ids=ids, moment=moment) for ids in ([0], [1, 2])]
    first, second = engine.perform(both, timeout_s=0.02)
    assert first.late + second.late == 1
    assert (list(first.client_ids), list(second.client_ids)) == ([0], [1, 2])


def test_a_message_that_is_not_taken_says_so_and_is_not_waited_for() -> None:
    grid = Unreliable()
    engine = engine_on(grid)
    grid.refused = {1001}
    replies = ask(engine, 1)
    assert list(replies.client_ids) == [0, 2]
    assert replies.failures == {1: NOT_TAKEN}
    grid.refused = set()
    assert ask(engine, 2).failures == {}


def test_every_message_that_is_not_taken_says_so() -> None:
    grid = Unreliable()
    engine = engine_on(grid)
    grid.refused = {1000, 1001}
    assert ask(engine, 1).failures == {0: NOT_TAKEN, 1: NOT_TAKEN}


def test_a_node_that_vanishes_is_missed_and_found_again_under_another_number() -> None:
    grid = Unreliable()
    engine = engine_on(grid)
    assert ask(engine, 1).failures == {}
    grid.away = {1001}
    assert ask(engine, 2).failures == {1: NO_NODE}
    grid.moves(1001, 5)
    replies = ask(engine, 3)
    assert (list(replies.client_ids), replies.failures) == ([0, 1, 2], {})
    assert torch.equal(replies.tensors["values"], ask(engine, 4).tensors["values"])


def test_a_node_without_a_name_costs_no_other_its_answer() -> None:
    grid = Unreliable()
    grid._contexts[1001].node_config.clear()
    engine = engine_on(grid)
    for round_index in (1, 2):
        replies = ask(engine, round_index)
        assert (list(replies.client_ids), replies.failures) == ([0, 2], {1: NO_NODE})


def strategy() -> FedAvg:
    client = ZerothOrderConfig(num_directions=2, estimator="residual")
    return FedAvg(FedAvgConfig(local_steps=2, timeout_s=0.03), client=client)


def test_nodes_that_change_their_number_change_no_bit() -> None:
    def go(engine: FlowerEngine | InProcessEngine, grid: Unreliable | None) -> Outcome:
        def move(snapshot: object) -> None:
            number = snapshot.record.round_index  # type: ignore[attr-defined]
            if grid is not None:
                grid.moves(min(grid._contexts), 2000 + number)

        limits = RunSettings(num_clients=N, num_rounds=5)
        problem = OpenProblem(initial_x=X0)
        return run_rounds(strategy(), engine, problem, limits, callbacks=[move])

    grid = Unreliable()
    moved = go(engine_on(grid), grid)
    plain = InProcessEngine(FunctionEnvironment(make), make_rules(), chunk_size=1)
    assert torch.equal(moved.state.x, go(plain, None).state.x)
    assert not any(record.failures for record in moved.records)


def test_a_late_answer_that_comes_while_a_new_node_is_asked_its_name_is_counted() -> None:
    grid = Unreliable()
    engine = engine_on(grid)
    grid.held = {1000}
    ask(engine, 1)
    grid.held = set()
    grid.moves(1002, 5)
    replies = [ask(engine, 2), ask(engine, 3)]
    assert [r.failures for r in replies] == [{}, {}]
    assert [r.late for r in replies] == [1, 0]


def test_a_late_answer_does_not_hide_the_name_of_a_new_node() -> None:
    grid = Unreliable()
    engine = engine_on(grid)
    grid.held = {1002}
    ask(engine, 1)
    grid.held = set()
    grid.moves(1001, 5)
    assert ask(engine, 2).failures == {}


def test_a_late_error_is_late_and_no_copy() -> None:
    grid = Unreliable()
    engine = engine_on(grid)
    grid.held = {1000}
    ask(engine, 1)
    for identity, answer in grid._answers.items():
        error = Message(Error(code=5, reason="expired"), reply_to=answer)
        error.metadata.__dict__["_reply_to_message_id"] = identity
        error.metadata.__dict__["_src_node_id"] = 1000
        grid._answers[identity] = error
    grid.held = set()
    replies = ask(engine, 2)
    assert (replies.failures, replies.late, replies.duplicates) == ({}, 1, 0)
