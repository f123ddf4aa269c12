"""Curves by hand, and figures that exist."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedzo.errors import ConfigError
from fedzo.records.curves import Curve, mean_curve, run_curve
from fedzo.records.figure_look import FigureLook
from fedzo.records.figure_style import read_style
from fedzo.records.history import RoundRecord
from fedzo.records.plots import draw_runs, plot_runs


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


def drawn(**wish: Any) -> Axes:
    """Return Axes with two methods, the first with two seeds, drawn as is wished."""
    axes = Figure().add_subplot()
    runs = {"a": [records([3.0, 1.0]), records([5.0, 2.0])], "b": [records([3.0, 0.5])]}
    draw_runs(axes, runs, axis="queries", quantity="value", look=FigureLook(**wish))
    return axes


def test_scales_and_limits_are_as_wished() -> None:
    axes = drawn(logx=True, logy=False, ylim=(0.25, None), xlim=(1.0, 8.0))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_ylim()[0] == 0.25
    assert axes.get_xlim() == (1.0, 8.0)
    assert drawn().get_yscale() == "log"
    assert drawn(ylim=(-1.0, 4.0)).get_yscale() == "linear"


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"ylim": (10.0, 20.0)}, r"ylim shows nothing: value goes from 0\.5 to 4"),
        ({"xlim": (None, -1.0)}, r"xlim shows nothing: queries goes from 0 to 10"),
    ],
)
def test_limits_that_show_nothing_are_refused(wish: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        drawn(**wish)


def test_logarithms_of_what_has_none_are_refused() -> None:
    axes = Figure().add_subplot()
    with pytest.raises(ConfigError, match=r"logy: value goes down to -1, .*leave logy out"):
        draw_runs(
            axes, {"a": [records([1.0, -1.0])]},
            axis="rounds", quantity="value", look=FigureLook(logy=True),
        )  # fmt: skip
    with pytest.raises(ConfigError, match=r"logx: no record has bytes above 0"):
        draw_runs(
            axes, {"a": [records([1.0])]},
            axis="bytes", quantity="value", look=FigureLook(logx=True),
        )  # fmt: skip


def test_a_legend_names_seeds_once_where_all_have_as_many() -> None:
    axes = Figure().add_subplot()
    two = [records([3.0, 1.0]), records([5.0, 2.0])]
    draw_runs(axes, {"a": two, "b": two}, axis="queries", quantity="value")
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert legend.get_title().get_text() == "mean of 2 seeds, band 1 s.e."
    texts = [text.get_text() for text in drawn().get_legend().get_texts()]
    assert texts == ["a (mean of 2 seeds, band 1 s.e.)", "b"]


def test_many_lines_are_named_beside_the_axes_and_differ_in_grey(tmp_path: Path) -> None:
    axes = Figure().add_subplot()
    runs = {f"method {k}": [records([3.0 + k, 1.0 + k])] for k in range(20)}
    draw_runs(axes, runs, axis="queries", quantity="value")
    looks = {(line._dash_pattern[1] and tuple(line._dash_pattern[1]), line.get_marker())
             for line in axes.lines}  # type: ignore[attr-defined]  # fmt: skip
    assert len(looks) == 20
    assert len(axes.get_legend().get_texts()) == 20
    plot_runs(tmp_path / "many.svg", runs)
    assert all(name in (tmp_path / "many.svg").read_text() for name in runs)


def test_colors_of_a_style_go_over_ours_and_dashes_stay(tmp_path: Path) -> None:
    path = tmp_path / "my.mplstyle"
    path.write_text("axes.prop_cycle: cycler('color', ['ff0000', '00ff00'])\n")
    axes = Figure().add_subplot()
    one = [records([3.0, 1.0])]
    draw_runs(
        axes, dict.fromkeys("abc", one), axis="queries", quantity="value", said=read_style(path)
    )
    assert [line.get_color() for line in axes.lines] == ["#ff0000", "#00ff00", "#ff0000"]
    assert len({line.get_marker() for line in axes.lines}) == 3


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_formats_go_by_the_suffix(tmp_path: Path, suffix: str) -> None:
    begin = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    path = tmp_path / f"a.{suffix}"
    plot_runs(path, {"a": [records([3.0, 1.0])]}, look=FigureLook(size=(2.0, 1.5)))
    assert path.read_bytes().startswith(begin[suffix])
    if suffix == "pdf":
        assert b"/Type3" not in path.read_bytes()


def test_an_unknown_suffix_names_the_formats(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.foo has no suffix of a format; write a\.pdf or"):
        plot_runs(tmp_path / "a.foo", {"a": [records([3.0, 1.0])]})
    assert not [*tmp_path.iterdir()]


def test_a_style_that_needs_what_is_not_installed_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my.mplstyle"
    path.write_text("text.usetex: true\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"my\.mplstyle cannot be drawn here: .*latex"):
        plot_runs(tmp_path / "a.png", {"a": [records([3.0, 1.0])]}, look=FigureLook(style=path))
    assert [one.name for one in tmp_path.iterdir()] == ["my.mplstyle"]


def test_names_that_look_alike_when_shortened_keep_their_lines() -> None:
    long = {f"{'a' * 60}{middle}{'a' * 60}": [records([3.0, 2.0])] for middle in ("X", "Y")}
    axes = Figure().subplots()
    draw_runs(axes, long, axis="rounds", quantity="value")
    assert len(axes.get_legend().get_texts()) == 2
