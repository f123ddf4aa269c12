"""How the lines of a figure differ: by color, and without color by dashes and markers.

Colors are those of Okabe and Ito, "Color Universal Design", 2008, which all kinds of color vision
tell apart, without the yellow that white paper swallows. Seven colors, five dashes and eight
markers have no common divisor, so 40 lines differ in grey print and 280 in color.
"""

from dataclasses import dataclass

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = (
    (),
    (5.0, 1.6),
    (1.2, 1.4),
    (7.0, 1.6, 1.2, 1.6),
    (4.0, 1.4, 1.2, 1.4, 1.2, 1.4),
)
"""Lengths of dashes and gaps in widths of the line; none is a whole line."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MARKER_EVERY = 0.12
"""Markers stand so far apart along a line, in diagonals of the axes."""


@dataclass(frozen=True, slots=True)
class LineLook:
    """Color, dashes and marker of a line, and where its first marker stands."""

    color: str
    dashes: tuple[float, ...]
    marker: str
    first_marker: float

    @property
    def line_style(self) -> str | tuple[float, tuple[float, ...]]:
        """The dashes as matplotlib takes them."""
        return (0.0, self.dashes) if self.dashes else "-"


def line_look(number: int) -> LineLook:
    """Return how the line of this number looks, from 0 on."""
    return LineLook(
        COLORS[number % len(COLORS)],
        DASHES[number % len(DASHES)],
        MARKERS[number % len(MARKERS)],
        MARKER_EVERY * (number % len(MARKERS)) / len(MARKERS),
    )
