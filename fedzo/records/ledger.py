"""The ledger: what clients were sent and have done in an exchange, small enough to keep.

A number stands for all clients of an exchange where they agree, and a list where they do not; ids
that follow each other are a first one and a count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

Each = int | float | tuple[int | float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One exchange. exchange_index: its place in the round; those made at once share it.

    span: first id and number of clients, or empty and `clients` has them. down, up: bytes; queries,
    gradients, examples: one number for all of them, or one for each. silent: clients that were
    never heard of.
    """

    exchange_index: int
    span: tuple[int, ...] = ()
    clients: tuple[int, ...] = ()
    down: Each = 0
    up: Each = 0
    queries: Each = 0
    gradients: Each = 0
    examples: Each = 0
    silent: tuple[int, ...] = ()

    @property
    def client_ids(self) -> Sequence[int]:
        """The clients, in the order of the numbers."""
        return range(self.span[0], sum(self.span)) if self.span else self.clients

    def to_json(self) -> dict[str, Any]:
        """Return what is not as usual."""
        named = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        return {name: value for name, (value, usual) in named.items() if value != usual}


def spanned(ids: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return ids as a span or, where some are missing between them, as they are."""
    if len(ids) and ids[-1] - ids[0] == len(ids) - 1:
        return (ids[0], len(ids)), ()
    return (), tuple(ids)


def shortest(numbers: Sequence[int | float]) -> Each:
    """Return one number where all are equal; whole ones as integers."""
    whole = tuple(int(number) if number == int(number) else number for number in numbers)
    return whole[0] if len(set(whole)) == 1 else whole


def of_each(numbers: Each, count: int) -> tuple[int | float, ...]:
    """Return one number for each of `count` clients."""
    return numbers if isinstance(numbers, tuple) else (numbers,) * count
