"""Exact slopes of a module's loss by forward-mode differentiation.

    (f(x), <grad f(x), u>)   in one pass of about two to three times the cost of a forward pass

The parameters are dual numbers while the loss is asked (torch.autograd.forward_ad). Memory: u, a
vector of length d, and a tangent of every activation, no graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn

from fedzo.errors import ObjectiveError
from fedzo.estimation.direction import Direction
from fedzo.estimation.place import Place, numbered


def ask_tangent(
    ask: Callable[[], Tensor], module: nn.Module, place: Place, u: Direction
) -> tuple[float, float]:
    """Return what is asked, and its slope along u. Raises ObjectiveError where there is none."""
    with torch.no_grad(), forward_ad.dual_level():
        tangents = {
            id(tensor): u.draw(
                first, first + tensor.numel(), dtype=tensor.dtype, device=tensor.device
            ).view_as(tensor)
            for first, tensor in numbered(place)
        }
        with _dual(module, tangents):
            primal, tangent = forward_ad.unpack_dual(ask())
    if tangent is None:
        raise ObjectiveError(
            "the loss does not depend on the parameters by operations of torch that can be"
            " differentiated forward; use a method that asks values, such as mezo"
        )
    return float(primal), float(tangent)


@contextmanager
def _dual(module: nn.Module, tangents: dict[int, Tensor]) -> Iterator[None]:
    """Let a module hold dual numbers in the place of its parameters."""
    held = [
        (part, name, p)
        for part in module.modules()
        for name, p in part._parameters.items()
        if p is not None and id(p) in tangents
    ]
    duals = {id(p): forward_ad.make_dual(p.detach(), tangents[id(p)]) for _, _, p in held}
    try:
        for part, name, p in held:
            part._parameters[name] = duals[id(p)]
        yield
    finally:
        for part, name, p in held:
            part._parameters[name] = p
