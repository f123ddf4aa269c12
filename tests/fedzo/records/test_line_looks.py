"""Lines differ in color, and in grey print by dashes and markers."""

import math

from matplotlib.colors import to_rgb
from matplotlib.markers import MarkerStyle

from fedzo.records.line_looks import COLORS, DASHES, MARKERS, line_look

METHODS = 40


def test_forty_lines_differ_without_color_and_all_but_three_hundred_with() -> None:
    looks = [line_look(number) for number in range(280)]
    assert len({(one.color, one.dashes, one.marker) for one in looks}) == 280
    assert len({(one.dashes, one.marker) for one in looks[:METHODS]}) == METHODS >= 20


def test_neighbors_share_nothing() -> None:
    for number in range(METHODS):
        one, next_one = line_look(number), line_look(number + 1)
        assert one.color != next_one.color
        assert one.dashes != next_one.dashes
        assert one.marker != next_one.marker


def luminance(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colors_are_seen_on_white_paper_and_differ_for_the_color_blind() -> None:
    """Contrast at least 2 to white; for a protanope and a deuteranope no two come together."""
    assert min(1.05 / (luminance(color) + 0.05) for color in COLORS) >= 2.0
    protan = ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052))
    deutan = ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969))
    for matrix in (protan, deutan):  # Machado, Oliveira and Fernandes 2009, severity 1
        seen = [
            tuple(sum(w * c for w, c in zip(row, to_rgb(color), strict=True)) for row in matrix)
            for color in COLORS
        ]
        gaps = [math.dist(a, b) for i, a in enumerate(seen) for b in seen[:i]]
        assert min(gaps) > 0.15


def test_matplotlib_knows_markers_and_dashes() -> None:
    assert all(MarkerStyle(marker).is_filled() for marker in MARKERS)
    assert all(len(dashes) % 2 == 0 for dashes in DASHES)
