"""Nested dicts and lists of tensors and plain values, such as an optimizer's state, in a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fedzo.errors import CheckpointError
from fedzo.records.tensor_file import read_tensors, write_tensors

_TENSOR, _PAIRS = "tensor", "pairs"


def write_nested(path: Path, nested: Mapping[str, Any]) -> None:
    """Write it; raises TypeError for what is neither a tensor nor plain (None, number, text).

    Keys of dicts may be whole numbers; tuples are lists when they are read again.
    """
    tensors: dict[str, Tensor] = {}

    def plain(each: Any, name: str) -> Any:
        if isinstance(each, Tensor):
            tensors[name] = each
            return {_TENSOR: name}
        if isinstance(each, Mapping):
            return {_PAIRS: [[key, plain(part, f"{name}/{key!r}")] for key, part in each.items()]}
        if isinstance(each, list | tuple):
            return [plain(part, f"{name}/{i}") for i, part in enumerate(each)]
        return each

    write_tensors(path, tensors, json.dumps(plain(nested, "")))


def read_nested(path: Path) -> dict[str, Any]:
    """Return what was written; raises CheckpointError for a file that is missing or damaged."""
    tensors, text = read_tensors(path)

    def whole(each: Any) -> Any:
        if isinstance(each, list):
            return [whole(part) for part in each]
        if isinstance(each, dict):
            if _TENSOR in each:
                return tensors[each[_TENSOR]]
            return {key: whole(part) for key, part in each[_PAIRS]}
        return each

    try:
        return dict(whole(json.loads(text)))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error
