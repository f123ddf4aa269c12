"""What a notebook shows of a result: a line a fact in text, a row a fact in HTML."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from html import escape
from typing import ClassVar

Fact = tuple[str, str]
"""A name, and what is told of it."""


class ShownByFacts(ABC):
    """Something that is shown by its facts, under a heading where it has one.

    A dataclass that inherits from it is made with repr=False.
    """

    __slots__ = ()
    WIDTH: ClassVar[int] = 18
    """Of the names in text."""

    def heading(self) -> str:
        """Return what stands above the facts; empty for nothing."""
        return ""

    @abstractmethod
    def facts(self) -> Sequence[Fact]:
        """Return what is shown."""

    def __repr__(self) -> str:
        lines = (f"{name + ':':<{self.WIDTH}}{told}" for name, told in self.facts())
        return "\n".join([*filter(None, [self.heading()]), *lines])

    def _repr_html_(self) -> str:
        above = f'<tr><th colspan="2">{escape(self.heading())}</th></tr>' * bool(self.heading())
        rows = (
            f"<tr><th>{escape(name)}</th><td>{escape(told)}</td></tr>"
            for name, told in self.facts()
        )
        return f"<table>{above}{''.join(rows)}</table>"
