"""Answers in JSON: an object that has one list under an agreed name."""

import json
from typing import Any

from fedzo.errors import ObjectiveError


def named_list(answer: bytes, name: str, wanted: str) -> list[Any]:
    """Return the list of this name in an answer; raises ObjectiveError for anything else."""
    try:
        rows = json.loads(answer, object_pairs_hook=_once_each)[name]
        if not isinstance(rows, list):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise no_answer(answer, name, wanted) from error
    return rows


def no_answer(answer: bytes, name: str, wanted: str) -> ObjectiveError:
    """Return the error that shows how an answer begins."""
    shown = answer[:80].decode(errors="replace")
    return ObjectiveError(f'the answer {shown!r} is not {{"{name}": [{wanted}]}}')


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; raises ValueError where it has two values of one name."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name has two values")
    return table
