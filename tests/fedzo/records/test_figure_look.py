"""What a user wants of a figure is checked in a sentence before anything is drawn."""

from pathlib import Path
from typing import Any

import matplotlib
import pytest

from fedzo.errors import ConfigError
from fedzo.records.figure_look import FigureLook, parse_limits, parse_size
from fedzo.records.figure_style import read_style, styled


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"ylim": (3.0, 1.0)}, r"ylim=3,1 must go up; write the lower end first"),
        ({"xlim": (None, None)}, r"xlim=, must be finite numbers"),
        ({"xlim": (float("nan"), 1.0)}, r"xlim=nan,1 must be finite"),
        ({"xlim": (0.0, 10.0), "logx": True}, r"xlim=0,10 must be above 0, for logx"),
        ({"ylim": (None, -1.0), "logy": True}, r"ylim=,-1 must be above 0, for logy"),
        ({"size": (0.1, 3.0)}, r"size=0.1,3 must be inches from 0.5 to 100"),
        ({"size": (3.0, float("inf"))}, r"size=3,inf must be inches"),
        ({"style": "ggplt"}, r"style=ggplt is no style of matplotlib; did you mean ggplot\?"),
        ({"style": "nothing like it"}, r"names are default, .*ggplot.*FILE\.mplstyle"),
        ({"style": "nowhere/my.mplstyle"}, r"my\.mplstyle cannot be read: No such file"),
    ],
)
def test_what_cannot_be_is_refused(wish: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        FigureLook(**wish)


def test_limits_and_sizes_are_read() -> None:
    assert parse_limits("0.1,10", "--ylim") == (0.1, 10.0)
    assert parse_limits("-1,", "--ylim") == (-1.0, None)
    assert parse_size("3.5,2.5") == (3.5, 2.5)
    for text in ("1", "1,2,3", "a,1", "nan,1"):
        with pytest.raises(ConfigError, match=r"--ylim .* is not LOW,HIGH; write for example"):
            parse_limits(text, "--ylim")
    for text in ("3", "3,", "3,x"):
        with pytest.raises(ConfigError, match=r"--size .* is not W,H; write inches"):
            parse_size(text)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("lines.linewith: 2\n", r"says 'lines.linewith: 2', .* did you mean lines.linewidth\?"),
        ("lines.linewidth: thick\n", r"is no style of matplotlib: .*thick"),
        ("no colon here at all\n", r"says 'no colon here at all', .*write KEY: VALUE"),
        ("backend: pdf\n", r"says 'backend: pdf', which is no setting of a style"),
        (b"\xff\xfe\n", r"is no style of matplotlib"),
    ],
)
def test_a_file_of_which_a_line_would_be_ignored_is_refused(
    content: str | bytes, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "my.mplstyle"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=why):
        read_style(path)


def test_a_style_holds_inside_and_not_outside(tmp_path: Path) -> None:
    path = tmp_path / "my.mplstyle"
    path.write_text("# mine\nlines.linewidth: 7  # thick\n\naxes.facecolor: eeeeee\n")
    before = dict(matplotlib.rcParams)
    for style in (path, str(path), "ggplot", "default", None):
        with styled(style) as said:
            assert matplotlib.rcParams["pdf.fonttype"] == 42
            if style in (path, str(path)):
                assert matplotlib.rcParams["lines.linewidth"] == said["lines.linewidth"] == 7
        assert dict(matplotlib.rcParams) == before
