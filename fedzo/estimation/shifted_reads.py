"""x + sum_i alpha_i u_i for whoever reads x, while x stays as it is.

An operation of torch that reads numbers of x gets a moved copy of those numbers, which lives as
long as the operation; operations that only view x (slices, transposes) get x. So a whole module is
asked at a moved point with memory for the numbers that one operation reads, at most its largest
tensor, and nothing has to be put back: adding and subtracting would not restore floats, and what
rounding loses, with mu near the size of the weights, is most of a second copy of x.

Each reading draws the directions anew: a recurrent cell that runs T times costs T draws. What hands
numbers to others without torch's dispatcher (`numpy`, `tolist`) gives them a moved copy too; a
kernel that takes memory as it is would read x itself, and `reads` counts operations that did not.
Modules of torch.compile run uncompiled meanwhile.
"""

import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from fedzo.errors import FedzoWarning, ObjectiveError
from fedzo.estimation.direction import misses
from fedzo.estimation.packed import Packed
from fedzo.estimation.place import Place, Term, numbered, write_moved

Move = tuple[Place, Sequence[Term]]
"""A place, and the terms along which it is moved for readers."""


class _Held(NamedTuple):
    """A tensor of a place, the place in x of its first number, and how it is moved.

    reach: the first byte of the tensor in its memory, and the first one after it.
    """

    first: int
    tensor: Tensor
    terms: Sequence[Term]
    reach: tuple[int, int]


class ShiftedReads(TorchDispatchMode):
    """While entered, operations on the tensors of a place read them moved along its terms.

    Several places, as the rows of the clients of a cohort, have terms of their own.
    """

    def __init__(self, *moves: Move) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads = 0
        self._unread: dict[int, torch.Size] = {}
        self._held: dict[int, list[_Held]] = {}
        for place, terms in moves:
            for first, tensor in numbered(place):
                if tensor.numel():
                    stop = first + tensor.numel()
                    own = [term for term in terms if not misses(term[0], first, stop)]
                    held = _Held(first, tensor.detach(), own, _reach(tensor))
                    self._held.setdefault(_memory(tensor), []).append(held)
                    if own:
                        self._unread[id(held.tensor)] = tensor.shape

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if not self._may_hold(args) and not (named and self._may_hold(named.values())):
            return func(*args, **named)
        if not self._holds_any(args) and not self._holds_any(named):
            return func(*args, **named)
        self._refuse_writes(func, args, named)
        if func.is_view:
            seen = func(*args, **named)
            parts = [seen] if isinstance(seen, Tensor) else tree_leaves(seen)
            if all(not part.numel() or self._overlapped(part) for part in parts):
                return seen  # not the copy that a reshape may be
        self.reads += 1
        if func is torch.ops.aten.embedding.default and (rows := self._moved_rows(*args[:2])):
            return rows[0]
        others = zip(named, self._all_moved(named.values()), strict=True)
        return func(*self._all_moved(args), **dict(others))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare torch the import of its compiler, 70 MiB and seconds, to keep it off this class."""
        return False

    def holds(self, tensor: Tensor) -> bool:
        """Return whether a tensor shares numbers with a place."""
        return bool(self._overlapped(tensor))

    def warn_of_unread(self) -> None:
        """Warn of moved tensors that no operation has read."""
        if self._unread:
            shape = tuple(next(iter(self._unread.values())))
            more = " and others" if len(self._unread) > 1 else ""
            warnings.warn(
                f"no operation of torch has read the parameter of shape {shape}{more}, so its"
                " moves are not seen; freeze what the loss does not need, and ask a function that"
                " reads it outside of torch through value(x)",
                FedzoWarning,
                stacklevel=2,
            )

    def _may_hold(self, values: Iterable[Any]) -> bool:
        """Return whether any tensor shares memory with a place: quick, for most share none."""
        for value in values:
            if isinstance(value, Tensor):
                if value.numel() and _memory(value) in self._held:
                    return True
            elif isinstance(value, list | tuple) and self._may_hold(value):
                return True
        return False

    def _holds_any(self, tree: object) -> bool:
        if isinstance(tree, dict):
            return self._holds_any([*tree.values()])
        if isinstance(tree, list | tuple):
            return any(self._holds_any(value) for value in tree)
        return bool(self._overlapped(tree))

    def _all_moved(self, values: Iterable[Any]) -> list[Any]:
        """Return the arguments of an operation, of which those are moved that are of a place."""
        return [
            tree_map(self._moved, value) if isinstance(value, list | tuple) else self._moved(value)
            for value in values
        ]

    def _overlapped(self, leaf: object) -> "list[_Held]":
        """Return the tensors of the places with which this one shares numbers."""
        if not isinstance(leaf, Tensor) or not leaf.numel():
            return []
        held = self._held.get(_memory(leaf))
        if not held:
            return []
        low, high = _reach(leaf)
        return [h for h in held if low < h.reach[1] and h.reach[0] < high]

    def _refuse_writes(self, func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Raise ObjectiveError where the operation would write into x."""
        for number, name in _written(func):
            if self._holds_any(args[number] if number < len(args) else named.get(name)):
                raise ObjectiveError(
                    f"the objective writes into the parameters that it is asked at ({func});"
                    " freeze what the module updates by itself, or make it a buffer"
                )

    def _moved(self, leaf: object) -> object:
        """Return a moved copy of a tensor that views x, and anything else as it is.

        Raises ObjectiveError for a view of more than one of the place's tensors, or in other types.
        """
        found = self._overlapped(leaf)
        if not isinstance(leaf, Tensor) or not found:
            return leaf
        first, whole, terms, reach = found[0]
        if not any(held.terms for held in found):
            return leaf
        self._unread.pop(id(whole), None)
        inside = reach[0] <= _reach(leaf)[0] and _reach(leaf)[1] <= reach[1]
        if len(found) > 1 or not inside or leaf.dtype != whole.dtype:
            raise ObjectiveError(
                f"an operation reads {tuple(leaf.shape)} numbers in {leaf.dtype} across parameters"
                " that share memory; give each its own (clone one), or, of an objective, ask it"
                " through value(x)"
            )
        start = int(leaf.storage_offset() - whole.storage_offset())
        if whole.is_contiguous():
            source = whole.view(-1)[start : start + _span(leaf)]
            first, start = first + start, 0
        else:
            source = whole
        moved = torch.empty_strided(
            source.size(), source.stride(), dtype=source.dtype, device=source.device
        )
        write_moved(moved, source, first, terms)
        return moved.as_strided(leaf.size(), leaf.stride(), start)

    def _moved_rows(self, table: Tensor, indices: Tensor) -> list[Tensor]:
        """Return the moved rows of a table that are looked up, without moving the whole table.

        Nothing where they are many, or where not every direction tells single numbers.
        """
        found = self._overlapped(table) if indices.numel() else []
        if not found:
            return []
        terms = [(u, alpha) for u, alpha in found[0].terms if isinstance(u, Packed)]
        few = indices.numel() * table.shape[1] < table.numel() // 4
        whole = len(found) == 1 and table.shape == found[0].tensor.shape and table.is_contiguous()
        if not (few and whole and terms and len(terms) == len(found[0].terms)):
            return []
        self._unread.pop(id(found[0].tensor), None)
        rows, places = indices.unique(return_inverse=True)
        width = table.shape[1]
        starts = found[0].first + rows * width
        held = table[rows]
        total = held if held.dtype == torch.float64 else held.float()
        for u, alpha in terms:
            total = total + u.rows(starts, width).to(total.dtype).mul_(alpha)
        return [total.to(held.dtype)[places]]


class _MovedCopies(TorchFunctionMode):
    """While entered, who takes numbers out of torch gets those of a copy, which is a read."""

    def __init__(self, reading: ShiftedReads) -> None:
        super().__init__()
        self._reading = reading

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _TAKEN and self._reading.holds(args[0]):
            args = (args[0].clone(), *args[1:])
        return func(*args, **(kwargs or {}))


_TAKEN = {Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__}


@functools.lru_cache(maxsize=1024)
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Return the places and names of the arguments into which an operation writes."""
    return tuple(
        (number, argument.name)
        for number, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def _memory(tensor: Tensor) -> int:
    """Return what tensors with the same memory have in common; 0 for those without memory."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def _reach(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of a tensor in its memory, and the first one after it."""
    low = int(tensor.storage_offset())
    return low * tensor.itemsize, (low + _span(tensor)) * tensor.itemsize


def _span(tensor: Tensor) -> int:
    """Return how many numbers of memory lie between a tensor's first and its last, and those."""
    if tensor.is_contiguous():
        return tensor.numel()
    steps = zip(tensor.size(), tensor.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in steps)


def ask_moved(ask: Callable[[], Tensor], *moves: Move) -> Tensor:
    """Return what `ask` answers, all of it run eagerly, while places are read as moved.

    Raises ObjectiveError where it answers without reading x by an operation of torch.
    """
    with _eager():
        if not any(terms for _, terms in moves):
            return ask()
        with _without_casts(), ShiftedReads(*moves) as reading, _MovedCopies(reading):
            answer = ask()
    if not reading.reads:
        raise ObjectiveError(
            "no operation of torch has read the parameters, so they cannot be moved where they"
            " are (does the function take their memory by itself?); hand them over by one, as"
            " torch.nn.utils.parameters_to_vector(module.parameters()), or, of an objective, ask it"
            " through value(x)"
        )
    reading.warn_of_unread()
    return answer


@contextmanager
def _without_casts() -> Iterator[None]:
    """Keep autocast from handing casts of parameters from one place to the next."""
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        torch.clear_autocast_cache()


def _eager() -> AbstractContextManager[object]:
    """Return what keeps compiled modules from running compiled, if anybody has compiled one."""
    compiler = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if compiler else nullcontext()
