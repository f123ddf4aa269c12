"""Curves by hand, and figures that exist."""

from pathlib import Path

import numpy as np
import pytest

from fedzo.errors import ConfigError
from fedzo.records.curves import Curve, mean_curve, run_curve
from fedzo.records.history import RoundRecord
from fedzo.records.plots import plot_runs


def records(values: list[float | None], problem: int = 0) -> list[RoundRecord]:
    return [
        RoundRecord(problem=problem, round_index=i, queries=10 * i, value=v, metrics={})
        for i, v in enumerate(values)
    ]


def test_step_functions_hold_their_value() -> None:
    curve = Curve(np.array([0.0, 10.0]), np.array([5.0, 3.0]))
    assert curve.at(np.array([-1.0, 0.0, 9.9, 10.0, 99.0])).tolist() == [5, 5, 5, 3, 3]


def test_problems_are_averaged_and_keep_their_last_value() -> None:
    curve = run_curve(records([4.0, 2.0]) + records([8.0, 6.0, 1.0], problem=1), "value", "queries")
    assert curve.positions.tolist() == [0, 10, 20]
    assert curve.values.tolist() == [6.0, 4.0, 1.5]


def test_rounds_without_a_value_are_left_out() -> None:
    curve = run_curve(records([4.0, None, 2.0]), "value", "rounds")
    assert curve.positions.tolist() == [0, 2]


def test_standard_error_by_hand() -> None:
    curves = [Curve(np.array([0.0]), np.array([v])) for v in (1.0, 3.0)]
    mean, error = mean_curve(curves)
    assert mean.values.tolist() == [2.0]
    assert error.tolist() == pytest.approx([1.0])


@pytest.mark.parametrize(("quantity", "axis"), [("accuracy", "queries"), ("value", "time")])
def test_unknown_quantities_and_axes_are_named(quantity: str, axis: str) -> None:
    with pytest.raises(ConfigError, match=r"accuracy|allowed: queries"):
        run_curve(records([1.0]), quantity, axis)


def test_a_figure_is_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "figure.png"
    plot_runs(path, {"a": [records([3.0, 1.0]), records([4.0, 2.0])], "b": [records([3.0, -1.0])]})
    assert path.read_bytes().startswith(b"\x89PNG")
