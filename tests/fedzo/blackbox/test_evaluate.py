"""Evaluations of a batch, wherever they run; a table of them; what is told of them; results."""

import os
from typing import Any

import numpy as np
import pytest

from fedzo.blackbox.evaluate import Answer, make_evaluator
from fedzo.blackbox.evaluations import TOLD, Evaluations
from fedzo.blackbox.result import Result
from fedzo.blackbox.told import as_ranking, as_reasons, as_values
from fedzo.errors import ConfigError, RunError

POINTS = np.array([[1.0], [2.0], [3.0]])


def half(x: Any) -> float:
    if x[0] == 2.0:
        raise ValueError("no two")
    return float(x[0]) / 2


@pytest.mark.parametrize(
    "options", [{"workers": 1}, {"workers": 3}, {"workers": 2, "run_in": "processes"}]
)
def test_answers_come_in_the_order_of_the_points(options: dict[str, Any]) -> None:
    given = {"run_in": "threads", "batched": False, **options}
    with make_evaluator(half, **given) as evaluate:
        first, second, third = evaluate(POINTS)
    assert (first, third) == (Answer(0.5), Answer(1.5))
    assert second.reason == "ValueError: no two"


def test_a_process_that_dies_ends_the_search_in_a_sentence() -> None:
    with (
        make_evaluator(lambda x: os._exit(3), workers=1, run_in="processes", batched=False) as f,
        pytest.raises(RunError, match="a worker process has died"),
    ):
        f(POINTS)


def test_a_batch_that_raises_fails_as_a_whole() -> None:
    def all_wrong(x: Any) -> Any:
        raise ValueError("no")

    with make_evaluator(all_wrong, workers=1, run_in="threads", batched=True) as evaluate:
        assert [answer.reason for answer in evaluate(POINTS)] == ["ValueError: no"] * 3


def test_equal_points_are_told_one_after_the_other() -> None:
    table = Evaluations(1)
    table.add(np.zeros((100, 1)))
    for number in range(3):
        table.ask(number, "same")
    assert table.find(["same", "same"]) == [0, 1]
    with pytest.raises(ConfigError, match="point 1 of 3 is not under way"):
        table.find(["same", "other", "same"])
    table.tell(0, "same", 5.0, TOLD)
    assert table.find(["same", "same"]) == [1, 2]
    with pytest.raises(ConfigError, match="point 2 of 3 is not under way"):
        table.find(["same", "same", "same"])
    assert (table.under_way, table.values[0], len(table.points)) == (2, 5.0, 100)


def test_what_is_told_by_hand() -> None:
    assert as_values([1, None, np.nan, np.inf, np.float32(2)], 5) == [1.0, None, None, None, 2.0]
    assert as_values(3.0, 1) == [3.0]
    assert as_ranking(np.array([1, 0]).tolist(), 2) == [1, 0]
    assert as_reasons(ValueError("x"), 2) == ["ValueError: x"] * 2
    with pytest.raises(ConfigError, match="one real number"):
        as_values([1j], 1)


def test_a_result_says_what_has_failed_and_escapes_what_it_shows() -> None:
    result = Result(
        x=np.arange(9.0), value=1.0, evaluations=3, failures=1, first_failure="<b>", why="so",
        points=np.zeros((3, 9)), values=np.array([2.0, np.nan, 1.0]), method="cma", stop="", seed=0,
    )  # fmt: skip
    assert result.best_values.tolist() == [2.0, 2.0, 1.0]
    assert "[0, 1, 2, 3, 4, ...] (9 numbers)" in repr(result)
    assert "3, 1 failed (<b>)" in repr(result)
    assert "&lt;b&gt;" in result._repr_html_()
    assert "<b>" not in result._repr_html_()
