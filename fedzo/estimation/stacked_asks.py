"""A module asked at many places at once: the places of a step as one batch of parameters.

    values = vmap(loss)(x + terms_1, ..., x + terms_q)

For small modules, where a pass costs more in calls than in arithmetic (610 numbers, batch 32: see
docs/zeroth_order.md). Values agree with those asked one by one but for rounding, because products
of stacks are summed up in another order. Memory: 2^22 numbers of moved parameters, and the
activations of as many passes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fedzo.errors import ObjectiveError
from fedzo.estimation.losses import one_number
from fedzo.estimation.place import Place, Term, numbered, write_moved
from fedzo.estimation.tangents import holding

_AT_ONCE = 1 << 22
"""Numbers of moved parameters."""


def ask_stacked(
    ask: Callable[[], Tensor], module: nn.Module, place: Place, moves: Sequence[Sequence[Term]]
) -> list[float]:
    """Return what is asked at x plus the terms of each move.

    Raises ObjectiveError for a loss that cannot be computed for a batch of parameters.
    """
    tensors = [(first, tensor.detach()) for first, tensor in numbered(place)]
    dim = sum(tensor.numel() for _, tensor in tensors)
    step, values = max(1, _AT_ONCE // dim), list[float]()
    ids = [id(tensor) for _, tensor in numbered(place)]

    def one(parts: list[Tensor]) -> Tensor:
        with holding(module, dict(zip(ids, parts, strict=True))):
            return one_number(ask()).reshape(())

    for low in range(0, len(moves), step):
        some = moves[low : low + step]
        stacks = [_moved(first, tensor, some) for first, tensor in tensors]
        try:
            with torch.no_grad():
                found = torch.func.vmap(one)(stacks)
        except (RuntimeError, ValueError) as error:
            raise ObjectiveError(
                f"this loss cannot be asked for a batch of parameters ({error}); leave out"
                " stacked=True"
            ) from error
        values += found.double().tolist()
    return values


def _moved(first: int, tensor: Tensor, moves: Sequence[Sequence[Term]]) -> Tensor:
    """Return a tensor as each of the moves has it."""
    stack = torch.empty(len(moves), *tensor.shape, dtype=tensor.dtype, device=tensor.device)
    for row, terms in zip(stack, moves, strict=True):
        if terms:
            write_moved(row, tensor, first, terms)
        else:
            row.copy_(tensor)
    return stack
