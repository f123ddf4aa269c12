"""Exact slopes of a module's loss by forward-mode differentiation.

    (f(x), <grad f(x), u>)   in one pass of about two to three times the cost of a forward pass

The parameters are dual numbers while the loss is asked (torch.autograd.forward_ad). Memory: u, a
vector of length d, and a tangent of every activation, no graph.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from fedzo.errors import ObjectiveError
from fedzo.estimation.direction import Direction
from fedzo.estimation.losses import one_number
from fedzo.estimation.place import Place, numbered


def ask_tangent(
    ask: Callable[[], Tensor], module: nn.Module, place: Place, u: Direction
) -> tuple[float, float]:
    """Return what is asked, and its slope along u. Raises ObjectiveError where there is none."""
    with torch.no_grad(), forward_ad.dual_level():
        duals = {}
        for first, tensor in numbered(place):
            stop = first + tensor.numel()
            along = u.draw(first, stop, dtype=tensor.dtype, device=tensor.device)
            duals[id(tensor)] = forward_ad.make_dual(tensor.detach(), along.view_as(tensor))
        with holding(module, duals), _differentiable_forward():
            primal, tangent = forward_ad.unpack_dual(one_number(_told(ask)))
    if tangent is None:
        raise ObjectiveError(
            "the loss does not depend on the parameters by operations of torch that can be"
            " differentiated forward; use a method that asks values, such as mezo"
        )
    return float(primal), float(tangent)


def _told(ask: Callable[[], Tensor]) -> Tensor:
    try:
        return ask()
    except NotImplementedError as error:
        if "forward AD" not in str(error):
            raise
        first, *_ = str(error).splitlines()
        raise ObjectiveError(
            f"torch cannot differentiate an operation of the module forward ({first}); use a method"
            " that asks values, such as mezo"
        ) from error


@contextmanager
def _differentiable_forward() -> Iterator[None]:
    """Keep torch from fused kernels that it cannot differentiate forward."""
    attention, kernels = torch.backends.mha, cast(Any, torch.backends.mkldnn)
    fused, used = attention.get_fastpath_enabled(), kernels.enabled
    try:
        attention.set_fastpath_enabled(False)
        kernels.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        attention.set_fastpath_enabled(fused)
        kernels.enabled = used


_OF_SHAPES = {
    torch.empty_like, torch.zeros_like, torch.ones_like, torch.full_like,
    torch.rand_like, torch.randn_like, torch.randint_like,
    cast(Any, torch.Tensor).grad.__get__,
}  # fmt: skip
"""Operations that read no numbers of a tensor, but shape and type, or what is kept beside it."""
_OF_FIRST = {torch.Tensor.to, torch.Tensor.type_as, torch.Tensor.view_as,
    torch.Tensor.expand_as, torch.Tensor.reshape_as}  # fmt: skip
"""Operations that read the first tensor alone, and shape or type of the other."""


class _NoOtherReads(TorchFunctionMode):
    """Refuses operations on tensors in whose place others are held."""

    def __init__(self, replaced: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._replaced = replaced

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        told = func(*args, **named)
        if func in _OF_SHAPES or getattr(func, "__name__", "").startswith("new_"):
            return told
        if any(isinstance(leaf, Tensor | float) for leaf in tree_leaves(told)):  # no shape or type
            read_from = args[:1] if func in _OF_FIRST else [args, named]
            for read in tree_leaves(read_from):
                if id(read) in self._replaced:
                    raise ObjectiveError(
                        f"the loss reads the parameter of shape {tuple(read.shape)} otherwise than"
                        " through the module that is trained; read it from the module, or use a"
                        " method that asks values, without stacked=True"
                    )
        return told


def _is_compiled(module: nn.Module) -> bool:
    return any(
        part._compiled_call_impl is not None or type(part).__name__ == "OptimizedModule"
        for part in module.modules()
    )


@contextmanager
def holding(module: nn.Module, instead: Mapping[int, Tensor]) -> Iterator[None]:
    """Let a module hold other tensors in the place of parameters, which are named by their id.

    Raises ObjectiveError where an operation reads one of these parameters in another way than
    through the module, such as a function that holds it: its moves would not be seen. Modules that
    torch.compile has made are not looked at, since they would be compiled anew for it.
    """
    held = [
        (part, name, p)
        for part in module.modules()
        for name, p in part._parameters.items()
        if p is not None and id(p) in instead
    ]
    try:
        for part, name, p in held:
            part._parameters[name] = instead[id(p)]  # type: ignore[assignment]
        with nullcontext() if _is_compiled(module) else _NoOtherReads(instead):
            yield
    finally:
        for part, name, p in held:
            part._parameters[name] = p
