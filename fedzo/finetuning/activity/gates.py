"""The local derivative of an elementwise function that reads a layer's outputs.

    a = phi(h)   ->   g = phi'(h),   ReLU: 1 where h > 0

What reaches the network's outputs through a site passes phi first, so g is known part of the way
back. It is found where it happens: an elementwise function of torch that is called, as a module or
not, with the very tensor that a site has given. Otherwise there is no gate, which stands for 1.

Whether a layer reads the function's result, and nothing else does, is seen by counting who is
called with it. Shapes: h and g [b, ...].
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_ELEMENTWISE: dict[Any, Callable[..., Tensor]] = {
    functional.relu: functional.relu,
    functional.relu_: functional.relu,
    torch.relu: functional.relu,
    torch.relu_: functional.relu,
    Tensor.relu: functional.relu,
    Tensor.relu_: functional.relu,
    functional.relu6: functional.relu6,
    functional.hardtanh: functional.hardtanh,
    functional.leaky_relu: functional.leaky_relu,
    functional.elu: functional.elu,
    functional.gelu: functional.gelu,
    functional.silu: functional.silu,
    functional.softplus: functional.softplus,
    functional.hardswish: functional.hardswish,
    functional.mish: functional.mish,
    torch.tanh: torch.tanh,
    Tensor.tanh: torch.tanh,
    torch.sigmoid: torch.sigmoid,
    Tensor.sigmoid: torch.sigmoid,
}
"""What may be called, and the function out of place that it computes."""

Found = Callable[[Tensor, Tensor], None]
"""Hears g and the function's result."""


class Gates(TorchFunctionMode):
    """While entered, tells who waits for the reader of a tensor what its local derivative is."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[int, tuple[weakref.ref[Tensor], Found]] = {}
        self._watched: dict[int, tuple[Tensor, int]] = {}

    def wait(self, outputs: Tensor, found: Found) -> None:
        """Call `found` with the gate of these outputs, if an elementwise function reads them."""
        self._waiting[id(outputs)] = (weakref.ref(outputs), found)

    def watch(self, tensor: Tensor) -> None:
        """Count from now on who reads a tensor, which is kept."""
        self._watched[id(tensor)] = (tensor, 0)

    def readers(self, tensor: Tensor) -> int:
        """Return how many functions were called with a tensor that is watched."""
        return self._watched[id(tensor)][1]

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if self._watched and func.__name__ != "__get__":  # an attribute, such as the shape
            for arg in args:
                tensor, count = self._watched.get(id(arg), (None, 0))
                if tensor is not None:
                    self._watched[id(arg)] = (tensor, count + 1)
        function = _ELEMENTWISE.get(func) if args else None
        if function is not None:
            held, found = self._waiting.get(id(args[0]), (None, None))
            if held is not None and found is not None and held() is args[0]:
                gate = _derivative(function, args, given)  # before it works in place
                result: Tensor = func(*args, **given)
                found(gate, result)
                return result
        return func(*args, **given)


def _derivative(
    function: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tensor:
    """Return phi' at every number of the first argument."""
    settings = {name: value for name, value in kwargs.items() if name != "inplace"}
    with torch.inference_mode(False), torch.enable_grad():
        h = args[0].detach().clone().requires_grad_()
        gate: Tensor
        [gate] = torch.autograd.grad(function(h, *args[1:], **settings).sum(), h)
    return gate
