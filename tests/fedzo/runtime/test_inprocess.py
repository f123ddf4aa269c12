"""The in-process engine: strict and chunked runs agree, failures stay with their client."""

from collections.abc import Sequence

import pytest
import torch
from worlds import Toy

from clients import make_rules
from clients.averaging.zeroth_order import ZerothOrderConfig
from fedzo.errors import RunError
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.objective import CallableObjective, TorchObjective
from fedzo.protocol.exchange import Exchange, Moment, Replies
from fedzo.protocol.questions import Values, ZerothOrderSteps
from fedzo.runtime.inprocess import InProcessEngine, chunk_size_for
from fedzo.runtime.local import FunctionEnvironment

D = 6
X = torch.linspace(0, 1, D, dtype=torch.float64)


def make(client: int) -> TorchObjective:
    return TorchObjective(function=lambda x: ((x - client) ** 2).sum(-1).cos(), dim=D)


def exchange(ids: Sequence[int] = range(5), x: torch.Tensor = X, **more: object) -> Exchange:
    settings = ZerothOrderConfig(**{"num_directions": 4, **more})  # type: ignore[arg-type]
    steps = ZerothOrderSteps(x=x, settings=settings, local_steps=3, local_lr=0.1)
    return Exchange(question=steps, client_ids=ids, seed=7, moment=Moment(0, 2))


def perform(ask: Exchange, **options: object) -> Replies:
    engine = InProcessEngine(FunctionEnvironment(make), make_rules(), **options)  # type: ignore[arg-type]
    return engine.perform([ask], timeout_s=10)[0]


@pytest.mark.parametrize("options", [{"strict": True}, {"chunk_size": 2}, {"chunk_size": 1}])
def test_strict_and_chunked_runs_agree(options: dict[str, object]) -> None:
    plain, other = perform(exchange()), perform(exchange(), **options)
    assert list(plain.client_ids) == list(other.client_ids) == list(range(5))
    assert plain.counts == other.counts
    if "strict" in options:
        assert torch.equal(plain.tensors["update"], other.tensors["update"])
    torch.testing.assert_close(
        plain.tensors["update"], other.tensors["update"], rtol=1e-9, atol=1e-12
    )


def test_an_unknown_kind_is_a_failure_that_names_the_known_ones() -> None:
    [replies] = InProcessEngine(FunctionEnvironment(make), make_rules()).perform(
        [Exchange(question=Toy(), client_ids=[1])], timeout_s=1
    )
    assert list(replies.client_ids) == []
    assert "no rule answers 'train.toy'" in replies.failures[1]


def test_a_client_without_objective_fails_alone() -> None:
    def choosy(client: int) -> TorchObjective:
        if client == 3:
            raise OSError("disk gone")
        return make(client)

    engine = InProcessEngine(FunctionEnvironment(choosy), make_rules())
    [replies] = engine.perform([exchange()], timeout_s=1)
    assert list(replies.client_ids) == [0, 1, 2, 4]
    assert replies.failures == {3: "OSError: disk gone"}
    expected = perform(exchange()).without({3: "x"}).tensors["update"]
    torch.testing.assert_close(replies.tensors["update"], expected, rtol=1e-12, atol=1e-15)


def test_a_client_that_breaks_in_mid_run_fails_alone_and_its_queries_count() -> None:
    calls = {"n": 0}

    def failing(x) -> float:  # type: ignore[no-untyped-def]
        calls["n"] += 1
        return 1.0 if calls["n"] <= 5 else float("nan")

    def choosy(client: int):  # type: ignore[no-untyped-def]
        return CallableObjective(function=failing, dim=D) if client == 2 else make(client)

    engine = InProcessEngine(FunctionEnvironment(choosy), make_rules())
    [replies] = engine.perform([exchange()], timeout_s=1)
    assert list(replies.client_ids) == [0, 1, 3, 4]
    assert "non-finite value (nan)" in replies.failures[2]
    assert replies.counts["queries"] == {0: 15, 1: 15, 2: 10, 3: 15, 4: 15}
    assert calls["n"] == 10


def test_two_questions_to_one_client_at_once_are_refused() -> None:
    engine = InProcessEngine(FunctionEnvironment(make), make_rules())
    with pytest.raises(RunError, match=r"clients \[1\] are asked twice"):
        engine.perform([exchange([0, 1]), exchange([1, 2])], timeout_s=1)


def test_two_kinds_at_once_come_back_in_order() -> None:
    engine = InProcessEngine(FunctionEnvironment(make), make_rules())
    values = Values(x=torch.ones(3, D, dtype=torch.float64))
    question = Exchange(question=values, client_ids=[4])
    first, second = engine.perform([exchange([0, 2]), question], timeout_s=1)
    assert first.tensors["update"].shape == (2, D)
    assert second.tensors["values"].shape == (1, 3)
    assert second.counts["queries"] == {4: 3}


def test_states_exist_for_clients_that_have_one() -> None:
    engine = InProcessEngine(FunctionEnvironment(make), make_rules())
    engine.perform([exchange([1, 4])], timeout_s=1)
    assert engine.client_states() == {}
    engine.perform([exchange([1, 4], estimator="residual")], timeout_s=1)
    assert sorted(engine.client_states()) == [1, 4]


def test_chunks_are_bounded_by_the_size_of_the_points() -> None:
    assert chunk_size_for(exchange([0], torch.zeros(10**6), num_directions=20)) == 1
    assert chunk_size_for(exchange()) > 10_000


def test_a_stacked_objective_that_raises_fails_its_cohort_with_the_reason() -> None:
    class Broken:
        noise_std = 0.0

        def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
            whole = cohort_of([make(c) for c in client_ids])

            class Stacked:
                num_clients, dim = len(client_ids), D
                lower, upper = whole.lower, whole.upper
                failures: dict[int, str] = {}  # noqa: RUF012

                def value(self, x: torch.Tensor) -> torch.Tensor:
                    raise MemoryError("too wide")

            return Stacked()

    [replies] = InProcessEngine(Broken(), make_rules()).perform([exchange([0, 1])], timeout_s=1)
    assert replies.failures == dict.fromkeys([0, 1], "MemoryError: too wide")
