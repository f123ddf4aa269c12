"""A client's code that raises now and then: counts, remedies, budgets, threads."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedzo.config import Scalar
from fedzo.errors import ConfigError, RunError
from fedzo.objectives.asking import RETRIES
from fedzo.objectives.circuit import NotAsked
from fedzo.objectives.looped_cohort import LoopedCohort
from fedzo.objectives.objective import CallableObjective, Objective
from fedzo.objectives.oracle import Oracle
from scenarios import federate, make_experiment
from scenarios.runs.run_result import RunResult

POINTS = torch.arange(12, dtype=torch.float64).reshape(1, 6, 2).repeat(2, 1, 1)


class Simulator:
    """Answers the sum of a point's numbers, and raises at some of its calls."""

    def __init__(self, *fails_at: int) -> None:
        self.calls, self._fails_at = 0, fails_at

    def __call__(self, x: Any) -> float:
        self.calls += 1
        if self.calls in self._fails_at:
            raise ValueError(f"call {self.calls}")
        return float(x.sum())


def oracle_of(*simulators: Simulator, **how: Any) -> Oracle:
    objectives: Sequence[Objective] = [CallableObjective(function=s, dim=2) for s in simulators]
    return Oracle(LoopedCohort(objectives), **how)


WHOLE = POINTS[0].sum(dim=1)


def test_fail_loses_the_client_and_counts_what_was_asked() -> None:
    broken, well = Simulator(3), Simulator()
    oracle = oracle_of(broken, well)
    values = oracle.value(POINTS)
    assert values[0].isnan().all()
    assert torch.equal(values[1], WHOLE)
    assert oracle.failures == {0: "ValueError: call 3"}
    assert oracle.counts()["queries"] == [broken.calls, well.calls] == [3, 6]


def test_retry_asks_the_point_again_and_counts_it() -> None:
    broken, well = Simulator(3, 5, 6), Simulator()
    oracle = oracle_of(broken, well, on_failure="retry")
    assert torch.equal(oracle.value(POINTS), torch.stack([WHOLE, WHOLE]))
    assert not oracle.failures
    assert oracle.counts()["queries"] == [broken.calls, well.calls] == [9, 6]
    oracle.value(POINTS[:, :2])
    assert oracle.counts()["queries"] == [broken.calls, well.calls] == [11, 8]


def test_retry_gives_up_in_the_end() -> None:
    broken = Simulator(*range(3, 20))
    oracle = oracle_of(broken, Simulator(), on_failure="retry")
    assert oracle.value(POINTS)[0].isnan().all()
    told = f"ValueError: call {3 + RETRIES}, and so it did {RETRIES} times more"
    assert oracle.failures[0] == told
    assert oracle.counts()["queries"] == [broken.calls, 6]


def test_skip_leaves_out_the_point_and_asks_the_others() -> None:
    broken = Simulator(1, 4)
    oracle = oracle_of(broken, Simulator(), on_failure="skip")
    values = oracle.value(POINTS)
    assert values[0].isnan().tolist() == [True, False, False, True, False, False]
    assert torch.equal(values[0, 1:3], WHOLE[1:3])
    assert not oracle.failures
    assert oracle.saw_non_finite
    assert oracle.counts()["queries"] == [broken.calls, 6] == [6, 6]
    assert oracle.counts()["non_finite"] == [2, 0]


def test_a_batch_is_asked_again_or_left_out_as_a_whole() -> None:
    asked: list[int] = []

    def batch(x: Any) -> Any:
        asked.append(len(x))
        if len(asked) == 1:
            raise OSError("busy")
        return x.sum(axis=1)

    cohort = LoopedCohort([CallableObjective(function=batch, dim=2, batched=True)])
    oracle = Oracle(cohort, on_failure="retry")
    assert torch.equal(oracle.value(POINTS[:1])[0], WHOLE)
    assert oracle.counts()["queries"] == [sum(asked)] == [12]
    asked.clear()
    left_out = Oracle(LoopedCohort(cohort.objectives), on_failure="skip")
    assert left_out.value(POINTS[:1]).isnan().all()
    assert left_out.counts()["queries"] == [6]


def test_a_budget_is_never_exceeded_by_asking_again() -> None:
    broken, well = Simulator(2, 4), Simulator()
    oracle = oracle_of(broken, well, on_failure="retry", query_budget=7)
    values = oracle.value(POINTS)
    assert values[0].isnan().all()
    assert oracle.failures[0].endswith("the query budget does not cover asking again")
    assert broken.calls == oracle.counts()["queries"][0] <= 7
    late = Simulator(2)
    oracle = oracle_of(late, Simulator(), on_failure="retry", query_budget=12)
    assert torch.equal(oracle.value(POINTS)[0], WHOLE)
    assert oracle.value(POINTS)[0].isnan().all()
    assert oracle.failures[0].startswith("1 queries that were asked again have used up its part")
    assert oracle.counts()["queries"] == [late.calls, 12] == [7, 12]


def test_a_wrong_experiment_is_not_asked_again() -> None:
    def wrong(x: Any) -> float:
        raise ConfigError("mend me")

    cohort = LoopedCohort([CallableObjective(function=wrong, dim=2)])
    with pytest.raises(ConfigError, match="mend me"):
        Oracle(cohort, on_failure="retry").value(POINTS[:1])


def ran(fails_at: int, on_failure: str, strategy: str = "fedzo", **more: Any) -> RunResult:
    """Run three clients, of which the first has a simulator that raises once."""
    simulators: dict[int, Simulator] = {}

    def make(client: int) -> Objective:
        simulators[client] = Simulator(*([fails_at] if client == 0 else []))
        simulator = simulators[client]
        return CallableObjective(function=lambda x: simulator(x**2), dim=4, lower=-2, upper=2)

    settings: dict[str, Scalar] = {"client.on_failure": on_failure, **more.pop("settings", {})}
    sizes = {"num_clients": 3, "num_rounds": 3, "initial_x": [1.0] * 4, **more}
    result = federate(make, strategy=strategy, settings=settings, **sizes)
    assert result.queries == sum(simulator.calls for simulator in simulators.values())
    return result


@pytest.mark.parametrize("strategy", ["fedzo", "seedzo", "fzoos", "square", "dshb"])
def test_one_failure_changes_nothing_where_it_is_asked_again(strategy: str) -> None:
    settings: dict[str, Scalar] = {"client.gradient": "zeroth_order"} if strategy == "dshb" else {}
    calm = ran(-1, "retry", strategy, settings=settings)
    shaken = ran(3, "retry", strategy, settings=settings)
    assert torch.equal(calm.solutions[0], shaken.solutions[0])
    assert shaken.queries == calm.queries + 1
    assert not any(record.failures for record in shaken.records)


def test_one_failure_costs_one_direction_where_it_is_skipped() -> None:
    skipped = ran(5, "skip")
    assert not any(record.failures for record in skipped.records)
    assert skipped.records[-1].non_finite <= 1
    assert sum(record.non_finite for record in skipped.records) == 1
    failed = ran(5, "fail")
    assert sum(len(record.failures) for record in failed.records) == 1
    assert skipped.queries > failed.queries


def test_judges_are_asked_again_and_never_skipped() -> None:
    """The first query of all is that of F at the start."""
    assert ran(1, "retry").records[0].judges == 3
    assert ran(1, "skip").records[0].judges == 2


def test_what_a_rule_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"client.on_failure='skip' is not allowed"):
        ran(-1, "skip", "seedzo")


FILE = """
def simulate(x):
    return float(x[0]) / 0
"""


def test_a_run_that_cannot_go_on_says_where_and_keeps_what_it_has(tmp_path: Path) -> None:
    from fedzo.user_code import load_object

    (tmp_path / "sim_of_mine.py").write_text(FILE)
    function = load_object(f"{tmp_path}/sim_of_mine.py:simulate", what="it")
    calls = [0]

    def sometimes(x: Any) -> float:
        calls[0] += 1
        return function(x) if calls[0] > 60 else float(x.sum())

    with pytest.raises(RunError, match=r"division by zero \(sim_of_mine.py, line 3\)") as caught:
        federate(lambda _: CallableObjective(function=sometimes, dim=2), num_clients=1,
                 num_rounds=50, settings={"client.num_directions": 2})  # fmt: skip
    partial = caught.value.result
    assert isinstance(partial, RunResult)
    assert 1 <= len(partial.records) < 51
    assert partial.solutions[0].shape == (2,)
    assert partial.stops == ["failed"]


def test_workers_ask_clients_at_a_time_at_the_same_bits() -> None:
    here: set[str] = set()
    meeting = threading.Barrier(4, timeout=20)

    def make(client: int) -> Objective:
        def slow(x: Any) -> float:
            here.add(threading.current_thread().name)
            meeting.wait()  # passes only when four clients are asked together
            return float(np.sum((x - client) ** 2))

        return CallableObjective(function=slow, dim=3)

    settings: dict[str, Scalar] = {"client.num_directions": 2, "strategy.local_steps": 2}
    together = federate(
        make, num_clients=4, num_rounds=2, settings={**settings, "engine.workers": 4}
    )
    assert all(name.startswith("fedzo-client") for name in here)

    def alone(client: int) -> Objective:
        return CallableObjective(function=lambda x: float(np.sum((x - client) ** 2)), dim=3)

    plain = federate(alone, num_clients=4, num_rounds=2, settings=settings)
    assert torch.equal(together.solutions[0], plain.solutions[0])
    assert together.queries == plain.queries


def test_threads_are_given_back() -> None:
    def make(client: int) -> Objective:
        return CallableObjective(function=lambda x: float(x.sum()), dim=2)

    federate(make, num_clients=2, num_rounds=1, settings={"engine.workers": 2})
    end = time.monotonic() + 10
    while time.monotonic() < end and any(
        thread.name.startswith("fedzo-client") for thread in threading.enumerate()
    ):
        time.sleep(0.01)
    assert not [t for t in threading.enumerate() if t.name.startswith("fedzo-client")]


def test_workers_for_formulas_are_refused() -> None:
    with pytest.raises(ConfigError, match="workers=4 has no effect with scenario=quadratic"):
        make_experiment("quadratic", "fedzo", settings={"engine.workers": 4})


class Dead:
    """An endpoint that has died: after some points nothing is sent to it any more."""

    dim, lower, upper = 2, -100.0, 100.0

    def __init__(self, answers: int, sent: int) -> None:
        self._answers, self._sent, self.sent = answers, sent, 0

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """Answer some points of a request, lose some that were sent, and send no others."""
        told = x.sum(-1)[: self._answers]
        self.sent += len(told) + self._sent
        error = NotAsked("it is not asked for another 9 s")
        error.points_asked = len(told) + self._sent
        error.answered = told.tolist()  # type: ignore[attr-defined]
        self._answers, self._sent = 0, 0
        raise error


@pytest.mark.parametrize("on_failure", ["fail", "retry", "skip"])
@pytest.mark.parametrize(("answers", "sent"), [(0, 0), (2, 0), (0, 1), (2, 2), (1, 5)])
def test_points_that_were_never_sent_are_not_counted(
    on_failure: Any, answers: int, sent: int
) -> None:
    dead = Dead(answers, sent)
    oracle = Oracle(LoopedCohort([dead]), on_failure=on_failure, query_budget=100)
    for _ in range(2):
        values = oracle.value(POINTS[:1])
        if on_failure == "skip":
            assert not oracle.failures
    assert oracle.counts()["queries"] == [dead.sent]
    if on_failure == "skip":
        assert bool(oracle.unheard) == (answers == 0)
        assert values.isnan().all()
    else:
        assert "not asked" in oracle.failures[0]


def test_who_answers_nothing_has_failed_though_points_may_be_skipped() -> None:
    def make(client: int) -> Objective:
        def value(x: Any) -> float:
            if client == 0:
                raise OSError("dead")
            return float((x**2).sum())

        return CallableObjective(function=value, dim=3)

    settings: dict[str, Scalar] = {
        "client.on_failure": "skip",
        "client.num_directions": 2,
        "strategy.evaluate_every": 0,
    }
    result = federate(make, num_clients=3, num_rounds=2, initial_x=[1.0] * 3, settings=settings)
    reason = result.records[1].failures[0]
    assert reason.startswith("OSError: dead")
    assert reason.endswith("at every point")
    settings["strategy.min_answers"] = 3
    with pytest.raises(RunError, match="2 of 3 clients answered"):
        federate(make, num_clients=3, num_rounds=2, initial_x=[1.0] * 3, settings=settings)
