"""Figures for formats without transparency: colors as they look on the paper beneath."""

from typing import Any

from matplotlib.collections import Collection
from matplotlib.colors import to_rgb, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

FORMATS = ("eps", "ps")
"""PostScript draws what is transparent whole, so that a band would hide what lies under it."""


def make_opaque(figure: Figure) -> None:
    """Replace every transparent color of lines, bands and frames of a figure."""
    for artist in figure.findobj():
        alpha = artist.get_alpha()
        if alpha is None or alpha == 1.0:
            continue
        beneath = (artist.axes or figure).get_facecolor()
        paper = to_rgb(beneath)
        if isinstance(artist, Line2D):
            artist.set_color(_mixed(artist.get_color(), float(alpha), paper))
        elif isinstance(artist, Collection):
            faces = [_mixed(face, float(alpha), paper) for face in _rows(artist.get_facecolor())]
            artist.set_facecolor(faces)
        elif not isinstance(artist, Patch):
            continue
        artist.set_alpha(None)


def _rows(colors: Any) -> list[tuple[float, ...]]:
    return [tuple(color[:3]) for color in to_rgba_array(colors)]


def _mixed(
    color: Any, alpha: float, paper: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Return a color as it looks on paper."""
    red, green, blue = (
        alpha * part + (1 - alpha) * white for part, white in zip(to_rgb(color), paper, strict=True)
    )
    return red, green, blue
