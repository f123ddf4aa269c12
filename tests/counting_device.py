"""A device of one's own, with the numbers of the CPU, that counts what crosses.

`Device()` is a dispatch mode: tensors moved to `PLACE` inside of it are held here, computed with
the CPU's kernels, and refuse to be mixed with tensors of the CPU, as those of a GPU do. So a run on
it has the bits of the run without, and what a rule forgets to move is an error, without a GPU.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PLACE = torch.device("lazy", 0)
_CPU = torch.device("cpu")
_INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)
"""What takes the numbers of rows from the CPU, on any device."""
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class There(Tensor):
    """A tensor on the device, and what it holds."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "There":
        made: There = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=PLACE,
        )
        made.held = held
        return made

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def tolist(self) -> list[Any]:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> object:
        raise TypeError(f"numpy(force={force}) of a tensor on the device")

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"There({self.held!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        raise RuntimeError(f"{func} of a tensor on the device, outside of its mode")


class Device(TorchDispatchMode):
    """While it is active, `PLACE` is a device; `up` and `down` tell size and type of every copy."""

    def __init__(self) -> None:
        super().__init__()
        self.up: list[tuple[int, torch.dtype]] = []
        self.down: list[tuple[int, torch.dtype]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare torch the import of its compiler, for seconds, to keep it off this class."""
        return False

    def __enter__(self) -> "Device":
        torch._C._set_only_lift_cpu_tensors(True)  # as_tensor(..., device=PLACE) comes by here, too
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = dict(kwargs or {})
        tensors = [*_tensors(args), *_tensors([*kwargs.values()])]
        away = [isinstance(x, There) for x in tensors]
        wanted = kwargs.get("device")
        there = any(away) if wanted is None else torch.device(wanted).type == PLACE.type
        if wanted is not None:
            kwargs["device"] = _CPU
        if func in _COPIES:
            self._count(func, tensors, there)
        elif func in _INDEXED and away[0]:
            self.up.extend(_size(t) for x, t in zip(away, tensors, strict=True) if not x)
        elif any(away) and any(not x and t.ndim for x, t in zip(away, tensors, strict=True)):
            shapes = [(tuple(t.shape), str(t.device)) for t in tensors]
            raise RuntimeError(f"{func} of tensors on different devices: {shapes}")
        if func is torch.ops.aten._local_scalar_dense.default and any(away):
            self.down.append(_size(tensors[0]))
        kwargs_held = {name: _mapped(_held, value) for name, value in kwargs.items()}
        made = func(*_mapped(_held, args), **kwargs_held)
        if func._schema.is_mutable:
            return kwargs.get("out", args[0] if args else None)
        return _mapped(There, made) if there else made

    def _count(self, func: object, tensors: list[Tensor], there: bool) -> None:
        to, source = tensors[0], tensors[-1]
        there = isinstance(to, There) if func is torch.ops.aten.copy_.default else there
        if isinstance(source, There) and not there:
            self.down.append(_size(source))
        if not isinstance(source, There) and there:
            self.up.append(_size(source))


def _size(tensor: Tensor) -> tuple[int, torch.dtype]:
    return tensor.numel(), tensor.dtype


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield what tensors there are in lists: torch's trees of anything take ten times as long."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, each) for each in value])
    return value


def _held(value: Tensor) -> Tensor:
    return value.held if isinstance(value, There) else value
