"""Text in a terminal: what users, clients and files have named is shown as it is, and does nothing.

Control characters, ESC and marks that turn the direction of writing among them, become visible;
rich's markup and emoji names in such text mean nothing.
"""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from fedzo.records.visible import visible


def shown(value: object, *, style: str = "") -> Text:
    """Return a text for a cell, a title or a console."""
    return Text(visible(str(value)), style=style)


def title(value: object) -> Text:
    """Return a text as the title of a table."""
    return shown(value, style="table.title")


def markup(value: object) -> str:
    """Return a text for what takes rich's markup only, such as a progress bar."""
    return escape(visible(str(value)))


def say(console: Console, sentence: str, *, style: str = "") -> None:
    """Print a sentence in lines as long as they are."""
    lines = "\n".join(visible(line) for line in sentence.split("\n"))
    console.print(Text(lines, style=style), soft_wrap=True)


def say_place(console: Console, what: str, path: Path | str) -> None:
    """Print where something lies."""
    say(console, f"{what}: {visible(str(path))}")
