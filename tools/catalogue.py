"""Write docs/catalogue.md: every name that can be typed, from the tables that commands read.

python tools/catalogue.py            # a test says where the page is old
"""

from pathlib import Path

from scenarios.cli.list import catalogue

PAGE = Path(__file__).parents[1] / "docs" / "catalogue.md"
HEAD = """# All names

What can be typed, as `fedzo list` says it. `fedzo list SCENARIO --strategy NAME` shows every
setting; `file.py:Name` stands for one of your own wherever a name does. Made by tools/catalogue.py.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, lines in catalogue().items():
        rows = [f"| `{name}` | {line.replace('|', chr(92) + '|')} |" for name, line in lines]
        parts.append(
            "\n".join(
                [f"## {title.capitalize()}\n", "| name | what it is |", "|---|---|", *rows, ""]
            )
        )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
