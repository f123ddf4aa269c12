"""fedzo.plot: into the user's Axes or a figure of its own, with nothing global changed."""

import doctest
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from stored_runs import result_of, write_methods

import fedzo
from fedzo.errors import ConfigError
from scenarios.runs import figure, table

METHODS = {"fast": [[9.0, 5.0, 2.0], [9.0, 6.0, 3.0]], "slow": [[9.0, 8.0, 4.0], [9.0, 7.0, 5.0]]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    write_methods(root / "runs" / "both", METHODS)
    return root


@pytest.mark.parametrize("module", [figure, table])
def test_the_examples_print_what_they_say(
    module: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    done = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert (done.failed, done.attempted > 1) == (0, True)


def test_nothing_global_changes_and_no_figure_of_pyplot_is_made_or_chosen(root: Path) -> None:
    with matplotlib.rc_context():
        matplotlib.use("agg")
        matplotlib.rcParams["lines.linewidth"] = 3.25
        mine, axes = plt.subplots(1, 2)
        other = plt.figure()
        before = dict(matplotlib.rcParams)
        fedzo.plot(root / "runs", ax=axes[0], logx=True)
        fedzo.plot(root / "runs", style="ggplot", out=root / "a.pdf")
        assert dict(matplotlib.rcParams) == before
        assert plt.get_fignums() == [mine.number, other.number]  # type: ignore[attr-defined]
        assert plt.gcf() is other
        assert {line.get_linewidth() for line in axes[0].lines} == {3.25}
        plt.close("all")


def test_a_panel_of_the_users_gets_the_lines_and_is_returned(root: Path) -> None:
    left, right = Figure(figsize=(7.0, 2.5)).subplots(1, 2)
    left.set_title("mine")
    found = fedzo.plot(root / "runs" / "both", ax=left, x="rounds", y="value", ylim=(1.0, None))
    assert found is left
    assert len(left.lines) == 2
    assert not right.lines
    assert left.get_title() == "mine"
    assert (left.get_xlabel(), left.get_ylabel()) == ("rounds", "objective F(x)")
    assert left.get_ylim()[0] == 1.0
    x, y = left.lines[0].get_data()
    assert (list(x), list(y)) == ([0, 1, 2], [9.0, 5.5, 2.5])


def test_results_in_memory_are_drawn_under_labels() -> None:
    axes = fedzo.plot({"a": result_of([3.0, 1.0]), "b": [result_of([3.0, 2.0], s) for s in (0, 1)]})
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["a", "b (mean of 2 seeds, band 1 s.e.)"]


def test_the_legend_says_which_runs_have_not_finished(tmp_path: Path) -> None:
    write_methods(tmp_path, METHODS | {"one": [[9.0, 2.0]]})
    for begun in ("fast/seed-1", "one/seed-0"):
        (tmp_path / begun / "result.json").unlink()
    texts = [text.get_text() for text in fedzo.plot(tmp_path).get_legend().get_texts()]
    assert texts == [
        "fast (mean of 2 seeds, band 1 s.e.; 1 of 2 not finished)",
        "one (not finished)",
        "slow (mean of 2 seeds, band 1 s.e.)",
    ]


def test_a_figure_is_written_whole_as_its_suffix_says(root: Path, tmp_path: Path) -> None:
    axes = fedzo.plot(root / "runs", out=tmp_path / "deep" / "a.svg", size=(3.5, 2.5))
    assert axes.figure.get_size_inches().tolist() == [3.5, 2.5]  # type: ignore[union-attr]
    assert "</svg>" in (tmp_path / "deep" / "a.svg").read_text()
    assert [one.name for one in (tmp_path / "deep").iterdir()] == ["a.svg"]


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"size": (3.0, 2.0)}, r"size=\(3\.0, 2\.0\) has no effect on an Axes of yours"),
        ({"style": "ggplot"}, r"style=ggplot has no effect on an Axes of yours"),
        ({"out": "a.png"}, r"out=a\.png has no effect on an Axes of yours"),
        ({"y": "gab"}, r"unknown quantity gab; allowed: value"),
        ({"x": "tim"}, r"x='tim' is unknown; allowed: queries"),
        ({"ylim": (100.0, 200.0)}, "ylim shows nothing"),
    ],
)
def test_what_would_be_ignored_is_refused(root: Path, wish: dict[str, Any], why: str) -> None:
    axes = Figure().subplots()
    with pytest.raises(ConfigError, match=why):
        fedzo.plot(root / "runs", ax=axes, **wish)
    assert not axes.lines
