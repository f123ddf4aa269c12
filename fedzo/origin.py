"""Whose code a file is: the user's, or that of Python, of what is installed, or of fedzo."""

import sys
import traceback
from pathlib import Path

_OWN = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1])


def is_of_a_user(path: Path) -> bool:
    """Return whether a path belongs neither to Python, nor to what is installed, nor to fedzo."""
    return path.is_absolute() and not any(place in (path, *path.parents) for place in _OWN)


def place_of(error: BaseException) -> str:
    """Return the innermost line of the user's in a traceback, as "file.py, line 3"; "" for none.

    The folder is left out: the text may travel to others.
    """
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(error.__traceback__), lookup_lines=False
    )
    own = [each for each in frames if is_of_a_user(Path(each.filename))]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
