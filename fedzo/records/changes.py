"""What has changed between two sets of named tensors, so that only that need be written.

    tensor = cat(rows of before, fresh rows)[places]

A tensor is unchanged where it is the same object: states are replaced, never mutated. Of another
of the same kind, those rows are fresh that are not, bit for bit, among the rows of before, wherever
they stood: a table of clients grows in its middle. What has no long rows is stored whole.

Cost: tensors of rows that are not the same object are read twice, and kept until the next look.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

_LONG = 512
"""Bytes of a row that is worth a place of its own."""
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}
WHOLE, ROWS, PLACES = "whole", "rows", "places"
"""What a stored tensor is of the one whose name follows, after a slash."""

Seen = Mapping[str, Callable[[], Tensor | None]]
"""Tensors as they were; those without rows may be gone, as only their identity counts."""


@dataclass(frozen=True, slots=True)
class Change:
    """The tensors to store, and the names that are no longer there."""

    tensors: Mapping[str, Tensor]
    gone: Sequence[str]


def look_at(tensors: Mapping[str, Tensor]) -> Seen:
    """Return what is to be remembered of tensors, so that a change of them can be found."""
    return {name: _remembered(tensor) for name, tensor in tensors.items()}


def _remembered(tensor: Tensor) -> Callable[[], Tensor | None]:
    return (lambda: tensor) if _has_rows(tensor) else weakref.ref(tensor)


def change(before: Seen, tensors: Mapping[str, Tensor]) -> Change:
    """Return what leads from the tensors seen before to these."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        old = before[name]() if name in before else None
        if old is tensor:
            continue
        fresh, places = _moves(old, tensor)
        if len(fresh) < len(places):
            stored[f"{ROWS}/{name}"] = tensor[fresh]
            stored[f"{PLACES}/{name}"] = torch.tensor(places)
        else:
            stored[f"{WHOLE}/{name}"] = tensor
    return Change(stored, [name for name in before if name not in tensors])


def apply(before: Mapping[str, Tensor], made: Change) -> dict[str, Tensor]:
    """Return the tensors after a change."""
    gone = frozenset(made.gone)
    after = {name: tensor for name, tensor in before.items() if name not in gone}
    for key, tensor in made.tensors.items():
        form, _, name = key.partition("/")
        if form == WHOLE:
            after[name] = tensor
        elif form == PLACES:
            after[name] = torch.cat([before[name], made.tensors[f"{ROWS}/{name}"]])[tensor]
    return after


def _has_rows(tensor: Tensor) -> bool:
    return tensor.dim() > 1 and tensor[:1].nbytes >= _LONG


def _moves(before: Tensor | None, now: Tensor) -> tuple[list[int], list[int]]:
    """Return the positions of the fresh rows, and each row's place among those of before and them.

    None where no row can be found again. Rows are looked up by the sum of their words.
    """
    if before is None or not (_has_rows(before) and _has_rows(now)):
        return [], []
    if before.dtype != now.dtype or before.shape[1:] != now.shape[1:]:
        return [], []
    old, new = _words(before), _words(now)
    known = {total: place for place, total in enumerate(_totals(old))}
    fresh: list[int] = []
    places: list[int] = []
    for position, total in enumerate(_totals(new)):
        place = known.get(total)
        if place is None or not torch.equal(old[place], new[position]):
            place = len(old) + len(fresh)
            fresh.append(position)
        places.append(place)
    return fresh, places


def _words(tensor: Tensor) -> Int[Tensor, "n w"]:
    """Return rows as integers of the same bits, of which -0.0 is not 0.0 and a nan is itself."""
    flat = tensor.detach().cpu().contiguous().flatten(1)
    return flat.view(_WORDS[tensor.element_size()])


def _totals(words: Int[Tensor, "n w"]) -> list[int]:
    return words.sum(dim=1, dtype=torch.int64).tolist()
