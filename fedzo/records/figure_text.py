"""Text in a figure: names that others chose, drawn as they are and not read as formulas."""

from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, get_font

from fedzo.records.visible import shortened, visible


def figure_text(text: str) -> str:
    """Return a text that matplotlib draws as it is, on one line, without its middle if long.

    What the font does not have is written as its escape. Legends leave out what begins with an
    underscore, so a space goes before it.
    """
    drawn = shortened("".join(c if _has(c) else _code(c) for c in visible(text)))
    drawn = drawn.replace("$", r"\$")
    return f" {drawn}" if drawn.startswith("_") else drawn


@lru_cache(maxsize=4096)
def _has(character: str) -> bool:
    """Return whether the font of figures has a character."""
    font = get_font(findfont(FontProperties()))
    return bool(font.get_char_index(ord(character)))


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode()
