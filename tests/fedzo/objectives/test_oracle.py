"""The oracle counts exactly, stops exactly, and hides nothing that is not finite."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.errors import ObjectiveError, RunError
from fedzo.objectives.cohort import cohort_of
from fedzo.objectives.objective import CallableObjective, TorchObjective
from fedzo.objectives.oracle import Oracle
from fedzo.randomness import streams


class Counter:
    """An instrumented function: what it saw is the truth."""

    def __init__(self, answer: float = 1.0) -> None:
        self.seen: list[list[float]] = []
        self.answer = answer

    def __call__(self, x) -> float:  # type: ignore[no-untyped-def]
        self.seen.append(x.tolist())
        return self.answer


def oracle_of(*functions, lower: float = -9.0, upper: float = 9.0, **options) -> Oracle:  # type: ignore[no-untyped-def]
    objectives = [CallableObjective(function=f, dim=2, lower=lower, upper=upper) for f in functions]
    return Oracle(cohort_of(objectives), **options)


@given(st.lists(st.integers(1, 4), max_size=5))
def test_counts_are_what_the_objectives_saw(asks: list[int]) -> None:
    counters = [Counter(), Counter()]
    oracle = oracle_of(*counters)
    for q in asks:
        oracle.value(torch.zeros(2, q, 2))
    assert oracle.counts()["queries"] == [len(c.seen) for c in counters] == [sum(asks)] * 2


@given(st.integers(0, 12), st.lists(st.integers(1, 4), max_size=8))
def test_the_budget_is_never_exceeded_and_a_refused_ask_costs_nothing(
    budget: int, asks: list[int]
) -> None:
    counter, spent = Counter(), 0
    oracle = oracle_of(counter, query_budget=budget)
    for q in asks:
        if spent + q > budget:
            with pytest.raises(RunError, match=f"{q} queries asked with {budget - spent}"):
                oracle.value(torch.zeros(1, q, 2))
        else:
            oracle.value(torch.zeros(1, q, 2))
            spent += q
        assert oracle.remaining == budget - spent
    assert len(counter.seen) == spent


def test_queries_are_clipped_to_the_box_or_left_alone() -> None:
    x = torch.tensor([[[2.0, -3.0]]], dtype=torch.float64)
    for policy, seen in (("clip", [1.0, 0.0]), ("allow", [2.0, -3.0])):
        counter = Counter()
        oracle_of(counter, lower=0.0, upper=1.0, out_of_bounds=policy).value(x)
        assert counter.seen == [seen]


def test_bounds_may_be_tensors() -> None:
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 5.0])
    objective = TorchObjective(function=lambda x: x.sum(-1), dim=2, lower=low, upper=high)
    oracle = Oracle(cohort_of([objective]))
    assert oracle.project(torch.tensor([[[7.0, -7.0]]])).tolist() == [[[1.0, -1.0]]]


def test_a_client_that_raises_fails_alone_and_is_asked_no_more() -> None:
    def broken(x) -> float:  # type: ignore[no-untyped-def]
        raise ZeroDivisionError("no ink")

    counter = Counter()
    oracle = oracle_of(counter, broken)
    for _ in range(2):
        values = oracle.value(torch.zeros(2, 3, 2))
    assert values[0].tolist() == [1.0] * 3
    assert values[1].isnan().all()
    assert oracle.failures == {1: "ZeroDivisionError: no ink"}
    assert oracle.counts()["queries"] == [6, 1], "it raised at the first of three points"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_values_fail_the_client_by_default_and_are_named(bad: float) -> None:
    counter = Counter(bad)
    oracle = oracle_of(Counter(), counter)
    oracle.value(torch.zeros(2, 2, 2))
    oracle.value(torch.zeros(2, 2, 2))
    assert f"({bad}), 2 of 2" in oracle.failures[1]
    assert oracle.counts() == {
        "queries": [4, 2],
        "gradients": [0, 0],
        "examples": [0, 0],
        "non_finite": [0, 2],
    }
    assert len(counter.seen) == 2


def test_non_finite_values_can_be_skipped_and_are_still_counted() -> None:
    oracle = oracle_of(Counter(float("inf")), Counter(), non_finite="skip")
    assert not oracle.value(torch.zeros(2, 3, 2))[0].isfinite().any()
    assert oracle.failures == {}
    assert oracle.counts()["non_finite"] == [3, 0]


def test_noise_has_its_size_and_its_key() -> None:
    def answers(seed: int) -> torch.Tensor:
        noise = streams(seed, "noise", clients=[0])
        oracle = oracle_of(Counter(5.0), noise_std=0.5, noise_generators=noise)
        return oracle.value(torch.zeros(1, 4000, 2, dtype=torch.float64))[0]

    values = answers(0)
    assert torch.equal(values, answers(0))
    assert not torch.equal(values, answers(1))
    assert abs(values.mean() - 5) < 5 * 0.5 / 4000**0.5
    assert abs(values.std() - 0.5) < 5 * 0.5 / 8000**0.5


def test_gradients_are_counted_and_checked() -> None:
    objectives = [
        TorchObjective(function=lambda x: x.square().sum(-1), dim=2),
        TorchObjective(function=lambda x: x.sqrt().sum(-1), dim=2),
    ]
    oracle = Oracle(cohort_of(objectives))
    gradient = oracle.gradient(torch.zeros(2, 2))
    assert gradient[0].tolist() == [0.0, 0.0]
    assert "non-finite gradient (inf)" in oracle.failures[1]
    assert oracle.counts()["gradients"] == [1, 1]


def test_clients_must_share_a_dimension() -> None:
    with pytest.raises(ObjectiveError, match=r"one dim, got \[2, 3\]"):
        cohort_of([CallableObjective(function=Counter(), dim=d) for d in (2, 3)])
