"""What others have named does nothing: in a terminal, in a figure, in JSON."""

import json
import math
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from fedzo.records.figure_text import figure_text
from fedzo.records.heatmap import draw_heatmap
from fedzo.records.history import RoundRecord
from fedzo.records.plots import plot_runs
from fedzo.records.strict_json import strict_json
from fedzo.records.terminal import markup, say, shown, title
from fedzo.records.visible import shortened, visible

HOSTILE = [
    *("[/red]", "c[bold]d", "a\\", ":warning:", "\x1b[31m", "a\rb", "x\ny", "\u202eabc", "\x9b2J"),
    *(r"$\frac$", "$x", "a_b^c", "\\", "_hidden", "\u4e2d\u6587", "\udcff", "z" * 500, "{}%s"),
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_terminal_shows_names_as_they_are(name: str) -> None:
    console = Console(file=StringIO(), width=2000, force_terminal=True, color_system=None)
    table = Table(title=title(name))
    table.add_row(shown(name), markup(name))
    console.print(table)
    say(console, f"error: {name}")
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    written = name.replace("\n", "\\n") if "\n" in name else visible(name)
    assert printed.count(written) >= 2
    assert not any(c in printed.replace("\x1b[0m", "") for c in "\r\u202e\x9b\x1b")
    printed.encode()


@pytest.mark.parametrize("name", [r"$\frac$", "$x", "\udcff"], ids=ascii)
def test_figures_draw_names_as_they_are(tmp_path: Path, name: str) -> None:
    """As title and axis these, which break a figure the most easily, and all in the legend."""
    records = [RoundRecord(round_index=i, value=1.0 + i, metrics={name: 1.0}) for i in range(2)]
    plot_runs(tmp_path / "a.png", {key: [records] for key in HOSTILE}, quantity=name, title=name)
    assert (tmp_path / "a.png").stat().st_size > 0
    assert all(len(figure_text(name)) <= 70 for name in HOSTILE)


def test_heatmaps_draw_names_as_they_are(tmp_path: Path) -> None:
    import numpy as np

    panel = np.zeros((1, 1))
    names = [r"$\frac$"]
    draw_heatmap(
        tmp_path / "a.png", {names[0]: panel}, names, names, title=names[0], higher_is_better=True
    )


def test_plain_names_stay() -> None:
    for name in ("fedzo", "F(x) - F*", "µ ± 1", "a b"):
        assert visible(name) == figure_text(name) == shortened(name) == name


def test_json_is_what_every_reader_takes() -> None:
    value = {"a": math.nan, "b": [math.inf, (1.5, -math.inf)], "c": {"d": math.nan}, "e": "NaN"}
    found = json.loads(strict_json(value), parse_constant=lambda name: pytest.fail(name))
    assert found == {"a": None, "b": [None, [1.5, None]], "c": {"d": None}, "e": "NaN"}
