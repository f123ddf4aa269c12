"""Whose code a file is: the user's, or that of Python, of what is installed, or of fedzo."""

import inspect
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


def place_of_code(thing: object) -> str:
    """Return where a function or class of the user's begins, as `place_of`; "" for others."""
    code = getattr(inspect.unwrap(thing) if callable(thing) else thing, "__code__", None)
    if code is None or not is_of_a_user(Path(code.co_filename)):
        return ""
    return f"{Path(code.co_filename).name}, line {code.co_firstlineno}"
