"""Where x is: tensors that, written one after another, are the vector that is optimized.

    p  <-  p + sum_i alpha_i u_i,   u_i the direction of a key                    (write_moved)

A place may be one vector, or the parameters of a module where they are. Number j of a direction
belongs to number j of x, in whatever tensor that is, so the bits of u do not depend on the cut.
Sums are taken in float32 at least and rounded once. Memory: 12 MiB (GPU: 400 MiB) at most, whatever
d; 4 MiB where one direction in float32 is written elsewhere, as probes do.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fedzo.estimation.direction import Direction, misses
from fedzo.estimation.packed import Packed, packed
from fedzo.estimation.view import View

Place = Sequence[Tensor] | View
"""All tensors of x, or a view of some of them."""
Term = tuple[Direction, float]
"""A direction, as a rule a key, and what it is multiplied with."""

_AT_ONCE = 1 << 20
_AT_ONCE_ON_GPU = 1 << 23


def numbered(place: Place) -> Iterator[tuple[int, Tensor]]:
    """Return each tensor with the place of its first number in x."""
    if isinstance(place, View):
        yield from zip(place.firsts, place.tensors, strict=True)
        return
    first = 0
    for tensor in place:
        yield first, tensor
        first += tensor.numel()


def add_terms_(place: Place, terms: Sequence[Term]) -> None:
    """Add sum_i alpha_i u_i to x where it is."""
    with torch.no_grad():
        for first, tensor in numbered(place):
            stop = first + tensor.numel()
            own = [term for term in terms if not misses(term[0], first, stop)]
            if own:
                write_moved(tensor, tensor, first, own)


def write_moved(out: Tensor, source: Tensor, first: int, terms: Sequence[Term]) -> None:
    """Write source + sum_i alpha_i u_i into a tensor of its shape, which may be the source.

    first: the place in x of the source's first number. One term is drawn into `out` itself.
    """
    plain = len(terms) == 1 and _plain(out) and _plain(source)
    if plain and out.dtype == torch.float32 and isinstance(bits := packed(terms[0][0]), Packed):
        bits.add_scaled_(out.view(-1), source.view(-1), first, terms[0][1])
        return
    if plain and out is not source:
        [(key, alpha)] = terms
        key.fill_(out.view(-1), first).mul_(alpha).add_(source.view(-1))
        return
    kind = torch.float64 if source.dtype == torch.float64 else torch.float32
    for start, target, block in _blocks(out, source):
        total = block.to(kind)
        for key, alpha in terms:
            low = first + start
            u = key.draw(low, low + block.numel(), dtype=kind, device=block.device)
            u = u.mul_(alpha).reshape(block.shape)
            total = torch.add(total, u, out=u)
        target.copy_(total)


def _plain(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and tensor.dtype in (torch.float32, torch.float64)


def _blocks(out: Tensor, source: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Cut two tensors of one shape into the same blocks, each with where it starts."""
    if out.is_contiguous() and source.is_contiguous():
        out, source = out.view(-1), source.view(-1)
    at_once = _AT_ONCE if out.device.type == "cpu" else _AT_ONCE_ON_GPU
    row = max(1, source[:1].numel())
    rows = max(1, at_once // row)
    pairs = zip(out.split(rows), source.split(rows), strict=True)
    for number, (target, block) in enumerate(pairs):
        yield number * rows * row, target, block
