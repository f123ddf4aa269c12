"""PostScript has no transparency: bands get the color that they have on paper."""

import logging
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from stored_runs import records_of

from fedzo.records.opaque import make_opaque
from fedzo.records.plots import plot_runs


def test_a_color_becomes_its_mixture_with_the_paper() -> None:
    axes = Figure().add_subplot()
    band = axes.fill_between([0, 1], [0, 0], [1, 1], color=(1.0, 0.0, 0.0), alpha=0.25)
    (line,) = axes.plot([0, 1], color="black", alpha=0.5)
    make_opaque(axes.figure)  # type: ignore[arg-type]
    assert band.get_facecolor()[0].tolist() == pytest.approx([1.0, 0.75, 0.75, 1.0])
    assert line.get_color() == pytest.approx((0.5, 0.5, 0.5))
    assert band.get_alpha() is line.get_alpha() is None


@pytest.mark.more
def test_eps_is_written_without_a_word_of_matplotlib(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = {"a": [records_of([3.0, 1.0]), records_of([4.0, 2.0])]}
    with caplog.at_level(logging.WARNING):
        plot_runs(tmp_path / "a.eps", runs)
    assert not caplog.records
    assert (tmp_path / "a.eps").read_bytes().startswith(b"%!PS-Adobe-3.0 EPSF")
