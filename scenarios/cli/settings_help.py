"""Every setting of an experiment: its value, what is allowed, with what it is used."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from fedzo.records.terminal import shown
from scenarios.cli.described import Section


def print_settings(console: Console, sections: Sequence[Section]) -> None:
    """Print the settings of every section, with the docstrings that explain them."""
    heads = ("value", "allowed", "used with")
    for section in sections:
        folded = [Column(head, overflow="fold") for head in heads]
        name = Column("setting", no_wrap=True)
        table = Table(name, *folded, title=section.name, title_justify="left")
        for row in section.rows:
            table.add_row(*map(shown, row))
        console.print(table)
        for text in section.texts:
            console.print(text, highlight=False, markup=False)
        console.print()
