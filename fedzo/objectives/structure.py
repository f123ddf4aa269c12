"""When two modules compute the same but for their tensors, and two functions the same.

A key is equal for both only where that is so: types, shapes and plain attributes are compared, and
of functions the code and what they close over; whatever else they hold must be the same object. A
key keeps none of these objects alive, and is equal to no other once one of them is gone.
"""

import weakref
from collections.abc import Callable, Hashable
from enum import Enum
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_OF_TORCH = frozenset(nn.Module().__dict__)
"""What torch keeps in every module: parameters, buffers, parts, mode and hooks."""
_HOOKS = tuple(name for name in sorted(_OF_TORCH) if name.endswith("_hooks"))


class Same:
    """Stands for an object in a key: equal to what stands for that very object, while it lives."""

    __slots__ = ("_hash", "_object")

    def __init__(self, value: object) -> None:
        self._hash = id(value)
        try:
            self._object: Callable[[], object | None] = weakref.ref(value)
        except TypeError:  # a kind that cannot be referred to but by keeping it
            self._object = lambda: value

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        value = self._object()
        return isinstance(other, Same) and value is not None and value is other._object()


def module_key(module: nn.Module) -> Hashable | None:
    """Return the structure of a module; None where it has hooks, which see what passes."""
    numbers: dict[int, int] = {}  # shared parts and tied tensors have one number
    found = []
    for name, part in module.named_modules(remove_duplicate=False):
        if _has_hooks(part):
            return None
        held = part.__dict__
        tensors = [
            (own, numbers.setdefault(id(t), len(numbers)), t.shape, t.dtype, t.device)
            for own, t in (*held["_parameters"].items(), *held["_buffers"].items())
            if t is not None
        ]
        number = numbers.setdefault(id(part), len(numbers))
        found.append((name, number, type(part), tuple(tensors), _attributes(part)))
    return tuple(found)


def value_key(value: Any) -> Hashable:
    """Return what is equal for functions of the same code and for plain values; else the object."""
    kind = type(value)
    if kind in _PLAIN or isinstance(value, Enum):
        return (kind, value)
    if kind in (tuple, list, set, frozenset):
        items = [value_key(item) for item in value]
        return (kind, frozenset(items) if kind in (set, frozenset) else tuple(items))
    if kind is dict:
        return (kind, tuple((value_key(k), value_key(v)) for k, v in value.items()))
    if kind is FunctionType:
        cells = [_cell(cell) for cell in value.__closure__ or ()]
        given = (value.__defaults__, value.__kwdefaults__, cells, value.__dict__)
        return (kind, value.__code__, Same(value.__globals__), value_key(list(given)))
    if kind is MethodType:
        return (kind, value_key(value.__self__), value_key(value.__func__))
    if kind is partial:
        return (kind, value_key([value.func, value.args, value.keywords]))
    if isinstance(value, nn.Module) and not _has_hooks(value) and not [*value.children()]:
        owned = [*value.named_parameters(), *value.named_buffers()]
        return (kind, value.training, tuple((n, Same(t)) for n, t in owned), _attributes(value))
    return Same(value)


def _attributes(part: nn.Module) -> Hashable:
    own = {name: value for name, value in part.__dict__.items() if name not in _OF_TORCH}
    return value_key(own)


def _has_hooks(part: nn.Module) -> bool:
    held = part.__dict__
    return any(held.get(name) for name in _HOOKS)


def _cell(cell: Any) -> Hashable:
    try:
        return value_key(cell.cell_contents)
    except ValueError:  # not yet set
        return ValueError
