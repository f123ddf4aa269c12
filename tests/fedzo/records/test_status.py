"""How a run stands: values, the best, what is left, by hand."""

from fedzo.records.history import RoundRecord
from fedzo.records.status import Limits, begun


def test_all_that_is_known_is_said() -> None:
    status = begun(Limits(num_rounds=10, query_budget=1000))
    status = status.after(RoundRecord(round_index=0, value=5.0))
    status = status.after(
        RoundRecord(
            round_index=4, value=2.0, queries=500, bytes_up=1_500_000, bytes_down=500,
            epsilon_run=1.25, clients=(0, 1, 2), client_queries=(1, 1, 1), failures={1: "away"},
            wall_s=120.0,
        )
    )  # fmt: skip
    assert status.parts() == {
        "round": "4/10", "F": "2", "best": "2", "queries": "500", "left": "500",
        "bytes": "1.5 MB", "epsilon": "1.25", "answered": "2/3", "ETA": "2:00",
    }  # fmt: skip
    assert status.line().startswith("round 4/10  F 2  best 2")


def test_the_end_is_that_of_the_rounds_or_of_the_budget_whichever_comes_first() -> None:
    slow = RoundRecord(round_index=2, queries=100, wall_s=10.0)
    assert begun(Limits(10)).after(slow).seconds_left == 40.0
    assert begun(Limits(10, 150)).after(slow).seconds_left == 5.0
    assert begun(Limits(10)).after(RoundRecord(round_index=0, wall_s=1.0)).seconds_left is None


def test_the_best_is_judged_by_as_many_as_must_and_of_its_own_problem() -> None:
    status = begun(Limits(5)).after(RoundRecord(round_index=0, value=3.0))
    status = status.after(RoundRecord(round_index=1, value=1.0, partial=True))
    assert (status.value, status.best) == (1.0, 3.0)
    status = status.after(RoundRecord(round_index=2))
    assert (status.value, status.best) == (1.0, 3.0)
    status = status.after(RoundRecord(round_index=3, value=float("nan")))
    assert status.best == 3.0
    status = status.after(RoundRecord(problem=1, round_index=0, value=7.0))
    assert (status.value, status.best) == (7.0, 7.0)
    assert status.parts()["problem"] == "1"
