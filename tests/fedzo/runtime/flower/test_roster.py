"""No node takes another's place, and no number that a node says costs memory."""

import time

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients import build_client_app
from fedzo.errors import FedzoWarning, RunError
from fedzo.objectives.objective import TorchObjective
from fedzo.protocol.exchange import Exchange
from fedzo.protocol.questions import Values
from fedzo.runtime.flower.engine import NO_NODE, FlowerEngine
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.flower.roster import MOST_CLIENTS, Roster

X = torch.zeros(1, 2, dtype=torch.float64)
INNER = build_client_app(
    lambda client: TorchObjective(function=lambda x: (x**2).sum(-1) + client, dim=2)
)


class Boasting(InProcessGrid):
    """Nodes that say who they are as `said` has it: node -> (partition-id, num-partitions)."""

    def __init__(self, num_clients: int, said: dict[int, tuple[object, object]]) -> None:
        class Boaster(ClientApp):
            def __call__(self, message: Message, context: Context) -> Message:
                node = context.node_id
                if message.metadata.message_type == "query.whoami" and node in said:
                    number, total = said[node]
                    who = ConfigRecord({"partition-id": number, "num-partitions": total})  # type: ignore[dict-item]
                    return Message(RecordDict({"whoami": who}), reply_to=message)
                return INNER(message=message, context=context)

        super().__init__(Boaster(), num_clients=num_clients)


def failures(engine: FlowerEngine, clients: range) -> dict[int, str]:
    ask = Exchange(question=Values(x=X), client_ids=clients)
    return dict(engine.perform([ask], timeout_s=30)[0].failures)


def test_of_two_nodes_with_one_number_none_is_asked_and_nobody_waits() -> None:
    engine = FlowerEngine(Boasting(3, {1002: (1, 3)}), poll_s=0.001)
    begun = time.monotonic()
    with pytest.warns(FedzoWarning, match="nodes 1001 and 1002 all say they are client 1"):
        assert engine.wait_for_clients(1, 60.0) == 3
    found = failures(engine, range(3))
    assert time.monotonic() - begun < 30, "it was told to wait for 60 s"
    assert found[2] == NO_NODE
    assert "nodes 1001 and 1002 all say they are client 1" in found[1]
    assert 0 not in found


@pytest.mark.parametrize("total", [0, -7, 10**12, 2**62, 4, True, "many"])
def test_what_one_node_says_of_their_number_moves_nobody(total: object) -> None:
    engine = FlowerEngine(Boasting(3, {1002: (2, total)}), poll_s=0.001)
    assert engine.wait_for_clients(3, 5.0) == 3
    assert failures(engine, range(3)) == {}


@pytest.mark.parametrize("number", [-1, 10**12, MOST_CLIENTS, True, "1", 2.0])
def test_a_node_with_no_number_of_a_client_is_left_out(number: object) -> None:
    engine = FlowerEngine(Boasting(3, {1002: (number, 3)}), poll_s=0.001)
    with pytest.warns(FedzoWarning, match="node 1002 is not asked"):
        assert engine.wait_for_clients(3, 5.0) == 3
    assert failures(engine, range(3)) == {2: NO_NODE}


def test_numbers_without_a_total_are_believed_within_reason() -> None:
    said: dict[int, tuple[object, object]] = {1000: (0, 0), 1001: (5, 0), 1002: (999_999, 0)}
    assert FlowerEngine(Boasting(3, said), poll_s=0.001).wait_for_clients(3, 5.0) == 6


def test_nodes_that_cannot_come_are_not_waited_for() -> None:
    begun = time.monotonic()
    with pytest.raises(RunError, match="3 clients are connected"):
        FlowerEngine(InProcessGrid(INNER, num_clients=3)).wait_for_clients(4, 60.0)
    assert time.monotonic() - begun < 5


def claimed(*claims: tuple[int, int]) -> Roster:
    roster = Roster()
    for node, client in claims:
        roster.claim(node, client, 3)
    roster.settle()
    return roster


@pytest.mark.filterwarnings("ignore::fedzo.errors.FedzoWarning")
def test_a_newcomer_is_left_out_while_the_holder_answers() -> None:
    roster = claimed((10, 0), (11, 1))
    assert roster.claim(99, 0, 3) == 10
    assert 0 not in roster.nodes
    assert roster.claim(10, 0, 3) is None
    assert roster.nodes == {0: 10, 1: 11}


@pytest.mark.filterwarnings("ignore::fedzo.errors.FedzoWarning")
def test_a_newcomer_takes_over_from_a_holder_that_is_silent_or_has_left() -> None:
    silent, left = claimed((10, 0)), claimed((10, 0))
    assert silent.claim(99, 0, 3) == left.claim(99, 0, 3) == 10
    silent.gone(10)
    left.keep({99})
    assert silent.nodes == left.nodes == {0: 99}


@pytest.mark.filterwarnings("ignore::fedzo.errors.FedzoWarning")
def test_who_leaves_frees_the_number_and_a_third_does_not_break_a_tie() -> None:
    roster = claimed((10, 0), (11, 0))
    assert roster.nodes == {}
    assert roster.claim(12, 0, 3) is None
    assert roster.nodes == {}
    roster.keep({10, 11})
    assert roster.nodes == {}
    roster.keep({11})
    assert roster.nodes == {0: 11}
    assert roster.reason(0) == ""


def test_the_number_of_clients_is_what_most_say_and_of_equals_the_fewest() -> None:
    roster = Roster()
    for node, total in ((1, 5), (2, 3), (3, 3), (4, 5)):
        roster.claim(node, node, total)
    assert roster.total() == 3
