"""The driver in bad times: spoilt rounds, missing judges, and answers that are not finite."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from worlds import Toy

from clients import make_rules
from clients.averaging.zeroth_order import ZerothOrderConfig
from fedzo.errors import RunError
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem, Report
from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from strategies import FedAvg, FedAvgConfig, Outcome, Snapshot, run_rounds
from strategies.core.driver import RunSettings
from strategies.core.robust import Defence, RobustConfig
from strategies.core.rounds import RoundConfig
from strategies.core.screening import rejected

D, N = 3, 4
NOBODY_LIES = Defence(robust=RobustConfig(), cohort=3, answers=3, num_clients=3)
X0 = torch.ones(D, dtype=torch.float64)
NAN = float("nan")
Spoil = Callable[[Exchange, Replies], Replies]


class Spoiling(InProcessEngine):
    """Changes what comes back by a function of the exchange and the replies."""

    def __init__(self, spoil: Spoil) -> None:
        def make(client: int) -> TorchObjective:
            return TorchObjective(function=lambda x: ((x - 0.1 * client) ** 2).sum(-1), dim=D)

        super().__init__(FunctionEnvironment(make), make_rules())
        self._spoil = spoil

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        received = super().perform(exchanges, timeout_s=timeout_s)
        return [self._spoil(e, replies) for e, replies in zip(exchanges, received, strict=True)]

    def client_states(self) -> Mapping[int, ClientState]:
        return {}


def outage(rounds: Sequence[int], kinds: Sequence[str] = ("train", "evaluate")) -> Spoil:
    """Nobody answers these kinds of question in these rounds."""

    def spoil(exchange: Exchange, replies: Replies) -> Replies:
        away = exchange.moment.round_index in rounds and exchange.kind.startswith(tuple(kinds))
        return replies.without(dict.fromkeys(exchange.client_ids, "outage")) if away else replies

    return spoil


@dataclass(frozen=True)
class Known:
    """A problem whose F the scenario knows."""

    initial_x: torch.Tensor = X0
    lower: float = -float("inf")
    upper: float = float("inf")
    index: int = 0
    asks_clients: bool = False

    def report(self, x: torch.Tensor, values: torch.Tensor | None) -> Report:
        return Report(float(x.square().sum()))


def go(spoil: Spoil, rounds: int = 8, judged: bool = True, **config: Any) -> Outcome:
    client = ZerothOrderConfig(num_directions=2)
    fedzo = FedAvg(FedAvgConfig(local_steps=2, **config), client=client)
    problem = OpenProblem(initial_x=X0) if judged else Known()
    limits = RunSettings(num_clients=N, num_rounds=rounds)
    return run_rounds(fedzo, Spoiling(spoil), problem, limits)


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_as_many_rounds_in_a_row_may_be_spoilt_as_is_said(allowed: int) -> None:
    survived = go(outage(range(2, 2 + allowed)), judged=False, max_failed_rounds=allowed)
    assert [r.round_index for r in survived.records] == list(range(9))
    with pytest.raises(RunError, match=rf"round {2 + allowed}: 0 of 4 clients answered.*outage"):
        go(outage(range(2, 3 + allowed)), judged=False, max_failed_rounds=allowed)


def test_spoilt_rounds_that_are_not_in_a_row_do_not_add_up() -> None:
    outcome = go(outage([1, 3, 5, 7]), judged=False, max_failed_rounds=1)
    spoilt = [r.round_index for r in outcome.records if len(r.failures) == N]
    assert spoilt == [1, 3, 5, 7]


def test_a_spoilt_round_leaves_x_as_it_was_and_says_why() -> None:
    kept: dict[int, torch.Tensor] = {}

    def keep(snapshot: Snapshot) -> None:
        kept[snapshot.record.round_index] = snapshot.state.x

    client = ZerothOrderConfig(num_directions=2)
    fedzo = FedAvg(FedAvgConfig(local_steps=2), client=client)
    limits = RunSettings(num_clients=N, num_rounds=3)
    engine = Spoiling(outage([2]))
    records = run_rounds(fedzo, engine, Known(), limits, callbacks=[keep]).records
    assert torch.equal(kept[2], kept[1])
    assert not torch.equal(kept[3], kept[2])
    assert records[2].failures == dict.fromkeys(range(N), "outage")
    assert records[2].queries > records[1].queries, "they had asked their objectives"


def test_a_round_below_min_answers_is_spoilt() -> None:
    def one_answers(exchange: Exchange, replies: Replies) -> Replies:
        return replies.without(dict.fromkeys([0, 1, 2], "outage"))

    assert go(one_answers, judged=False, min_answers=1).records[-1].clients_answered == 1
    with pytest.raises(
        RunError, match=r"1 of 4 clients answered.*min_answers=2.*had asked 24 queries"
    ) as end:
        go(one_answers, judged=False, min_answers=2, max_failed_rounds=2)
    assert end.value.unrecorded == 24


def test_f_that_too_few_can_judge_is_left_out() -> None:
    outcome = go(outage([2, 3], ["evaluate"]))
    assert [r.value is None for r in outcome.records] == [
        r.round_index in (2, 3) for r in outcome.records
    ]
    assert [r.judges for r in outcome.records[:4]] == [N, N, 0, 0]
    calm = go(outage([]))
    assert torch.equal(outcome.state.x, calm.state.x), "judging moves nothing"


def test_f_is_the_mean_of_those_who_judge() -> None:
    def two_judge(exchange: Exchange, replies: Replies) -> Replies:
        judging = exchange.kind == "evaluate"
        return replies.without({0: "outage", 3: "outage"} if judging else {})

    record = go(two_judge, rounds=0).records[0]
    assert record.judges == 2
    values = [float(((X0 - 0.1 * client) ** 2).sum()) for client in (1, 2)]
    assert record.value == pytest.approx(sum(values) / 2, rel=1e-12)


def test_a_start_that_nobody_can_judge_ends_the_run() -> None:
    with pytest.raises(RunError, match="0 of 4 clients answered evaluate"):
        go(outage([0]))


def test_an_outage_of_whole_rounds_counts_each_once() -> None:
    outcome = go(outage([3, 4, 5]), max_failed_rounds=3)
    assert outcome.records[-1].round_index == 8


def test_a_last_x_that_nobody_can_judge_has_one_record() -> None:
    outcome = go(outage([3], ["evaluate"]), rounds=3)
    assert [r.round_index for r in outcome.records] == [0, 1, 2, 3]


def with_nan(exchange: Exchange, replies: Replies) -> Replies:
    """Client 2's updates hold a NaN."""
    if exchange.kind != "train.zeroth_order":
        return replies
    update = replies.tensors["update"].clone()
    update[2, 1] = NAN
    return Replies(client_ids=replies.client_ids, tensors={"update": update}, counts=replies.counts)


def test_what_is_not_finite_is_rejected_and_averaged_over_the_others() -> None:
    outcome = go(with_nan, rounds=2, judged=False)
    assert outcome.records[1].failures == {2: "rejected: update is not finite"}
    lost = go(lambda _, replies: replies.without({2: "lost"}), rounds=2, judged=False)
    assert torch.equal(outcome.state.x, lost.state.x)


def test_what_is_not_finite_is_passed_on_if_wanted_and_a_plain_mean_says_so() -> None:
    with pytest.raises(
        RunError, match=r"round 1 ended in an x that is not finite.*non_finite=reject"
    ):
        go(with_nan, rounds=2, judged=False, non_finite="pass")


def test_passing_changes_nothing_where_all_is_finite() -> None:
    calm = outage([])
    passed, rejected = go(calm, non_finite="pass"), go(calm, non_finite="reject")
    assert torch.equal(passed.state.x, rejected.state.x)


ASKED = Exchange(question=Toy(), client_ids=[4, 5, 9])


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2), (1, 0, 2)])
def test_the_clients_that_are_not_finite_are_found(bad: float, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(3, *shape)
    tensor[1].fill_(bad)
    replies = Replies(client_ids=[4, 5, 9], tensors={"a": torch.ones(3, 1), "b": tensor})
    expected = {} if tensor.numel() == 0 else {5: "rejected: b is not finite"}
    assert rejected([ASKED], [replies], RoundConfig(), NOBODY_LIES) == expected


def test_one_number_a_client_may_be_not_finite() -> None:
    replies = Replies(client_ids=[4, 5], tensors={"loss": torch.tensor([NAN, 1.0])})
    found = rejected([ASKED], [replies], RoundConfig(), NOBODY_LIES)
    assert found == {4: "rejected: loss is not finite"}


def test_judges_who_answer_nothing_are_as_good_as_absent() -> None:
    def empty(exchange: Exchange, replies: Replies) -> Replies:
        if exchange.kind != "evaluate" or exchange.moment.round_index != 1:
            return replies
        tensors = {"values": replies.tensors["values"][:, :0]}
        return Replies(client_ids=replies.client_ids, tensors=tensors, counts=replies.counts)

    assert go(empty, rounds=2).records[1].value is None
