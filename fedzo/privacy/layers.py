"""Norms of the records' gradients of a dense network, and clipped sums of them, without any of
them.

A layer z = a W + b with inputs a and slopes e = dl/dz of one record has the gradient (a e^T, e), so

    |g|^2       = sum_layers (|a|^2 + 1) |e|^2
    |g - g'|^2  = sum_layers (|a|^2 + 1) |de|^2 + |e'|^2 |da|^2 + 2 <de, e'> <a, da>

with de = e - e', da = a - a'. The first is Goodfellow, "Efficient Per-Example Gradient
Computations", arXiv 1510.01799, section 3; the second, for one record at two points, is the same
for (de a~^T + e' da~^T), a~ = (a, 1). It is written with de and da because the norms of e a^T and
e' a'^T cancel to nothing when the points are close. Weighted sums are one matrix product a layer:
sum_j w_j g_j = (a^T (w e), sum_j w_j e_j).

Close is one thing, and records chosen by somebody another: W |de|^2 and |e'|^2 |da|^2 can cancel
as well. So norms are summed in float64 together with T, what they would be if nothing cancelled,
and records of which rounding may have left nothing are formed by themselves
(fedzo.privacy.rounding).

A layer that is applied to each of the t rows of a record, a sequence, has the gradient
sum_t a_t e_t^T, whose norm takes the Gram matrices of both; opacus computes that (its "ghost
clipping", Li et al., arXiv 2110.05679, section 4), where it is installed.

Shapes: inputs [n, m, i] and slopes [n, m, o] of n clients with m records, or [n, m, t, i] and
[n, m, t, o]; norms [n, m], in float64. Cost: about that of one more forward pass; memory: m (i + o)
floats a layer, where records' gradients take m d.
"""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedzo.privacy.rounding import TOLERANCE, clip_long, representable, shrink, slack

_ALONE = 1 << 22
"""Floats that records which are formed by themselves may take at once: 32 MB."""
_TOGETHER = 1 << 17
"""Floats whose products are made at once."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one dense layer has seen of a batch: its inputs, and the slopes of the losses.

    squares: |inputs|^2, where it is known already, as of data that do not change. bias: whether
    the layer has one.
    """

    inputs: Float[Tensor, "n m *t i"]
    slopes: Float[Tensor, "n m *t o"]
    squares: Float[Tensor, "n m"] | None = None
    bias: bool = True

    @property
    def weight(self) -> Float[Tensor, "n m *t"]:
        """|(inputs, 1)|^2, or |inputs|^2, by which a record's slopes count."""
        squares = squared(self.inputs) if self.squares is None else self.squares
        return squares + 1 if self.bias else squares


Sums = list[tuple[Float[Tensor, "n o i"], Float[Tensor, "n o"]]]
"""Of each layer: the sum of weight gradients, transposed, and that of bias gradients."""


@cache
def knows_sequences() -> bool:
    """Return whether norms of layers that are applied to sequences can be had: from opacus."""
    return importlib.util.find_spec("opacus") is not None


@dataclass(frozen=True, slots=True)
class Norms:
    """What is known of the records' gradients, or of their changes, in float64.

    squares: N^2; uncancelled: T (see fedzo.privacy.rounding); reach: no square of the norms behind
    them is larger.
    """

    squares: Float[Tensor, "n m"]
    uncancelled: Float[Tensor, "n m"]
    reach: Float[Tensor, "n m"]


def clipped_sums_of(
    now: Sequence[Layer],
    before: Sequence[Layer] | None,
    clip_norms: Float[Tensor, " n"],
    *,
    into: torch.dtype | None = None,
) -> tuple[Sums, Float[Tensor, " n"]]:
    """Return sums of records' clipped gradients, or of their changes, and how many were shortened.

    Records whose gradients are not finite count as zeros. into: the type that the sums are turned
    into, where it is another.
    """
    now, before = widened(now), None if before is None else widened(before)
    dtype, most = now[0].slopes.dtype, clip_norms.double().unsqueeze(1)
    room = _room(now, max(dtype, into or dtype, key=lambda one: torch.finfo(one).eps))
    norms = norms_of(now, before)
    tiny = torch.finfo(dtype).tiny
    doubt = room * norms.uncancelled + tiny * norms.reach
    factors = shrink((norms.squares + doubt).sqrt(), most)
    sure = doubt <= TOLERANCE * norms.squares.maximum(most.square())
    sure &= representable(factors, most, dtype) & (norms.reach <= (most / tiny * 2**-16).square())
    odd = ~(norms.squares.isfinite() & (sure | (most == 0)))
    if not bool(odd.any()):
        shortened = (factors < 1).sum(dim=-1).to(dtype)
        return weighted_sums(now, before, factors.to(dtype)), shortened
    extra, count = _alone(now, before, odd, clip_norms.double(), room)
    factors = factors.masked_fill(odd, 1.0)
    rest = without(now, odd), None if before is None else without(before, odd)
    sums = weighted_sums(*rest, factors.to(dtype))
    added = [(m + e[..., 1:], b + e[..., 0]) for (m, b), e in zip(sums, extra, strict=True)]
    return [(m.to(dtype), b.to(dtype)) for m, b in added], ((factors < 1).sum(dim=-1) + count).to(
        dtype
    )


def squared_norms(layers: Sequence[Layer]) -> Float[Tensor, "n m"]:
    """Return the squared norm of every record's gradient."""
    return norms_of(layers, None).squares


def norms_of(layers: Sequence[Layer], previous: Sequence[Layer] | None) -> Norms:
    """Return the norms of every record's gradient, or of its change since the previous point."""
    if previous is None:
        parts = [_of_gradient(layer) for layer in layers]
    else:
        parts = [_of_change(now, old) for now, old in zip(layers, previous, strict=True)]
    return Norms(*(_total(each) for each in zip(*parts, strict=True)))


def widened(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Return layers in float32 where they are of a shorter type."""
    if torch.finfo(layers[0].slopes.dtype).bits >= 32:
        return layers
    return [replace(one, inputs=one.inputs.float(), slopes=one.slopes.float()) for one in layers]


def without(layers: Sequence[Layer], records: Bool[Tensor, "n m"]) -> list[Layer]:
    """Return the layers with what these records have left in them replaced by zeros."""

    def kept(seen: Tensor) -> Tensor:
        return seen.masked_fill(_like(records, seen), 0)

    return [
        replace(layer, inputs=kept(layer.inputs), slopes=kept(layer.slopes), squares=None)
        for layer in layers
    ]


def weighted_sums(
    layers: Sequence[Layer], previous: Sequence[Layer] | None, weights: Float[Tensor, "n m"]
) -> Sums:
    """Return the sums of the records' gradients, or of their changes, each times its weight."""
    found = []
    for now, before in zip(layers, repeat(None) if previous is None else previous, strict=False):
        each = _like(weights, now.slopes)
        scaled = (now.slopes if before is None else now.slopes - before.slopes) * each
        matrix = _outer(now.inputs, scaled)
        if before is not None and now.inputs is not before.inputs:
            matrix = matrix + _outer(now.inputs - before.inputs, before.slopes * each)
        found.append((matrix, scaled.flatten(1, -2).sum(dim=1)))
    return found


Measured = tuple[Float[Tensor, "n m"], Float[Tensor, "n m"], Float[Tensor, "n m"]]
"""A layer's part of `Norms`."""


def _of_gradient(layer: Layer) -> Measured:
    if layer.slopes.dim() > 3:
        return _of_sequence(layer)
    weight, slopes = layer.weight, squared(layer.slopes)
    found = weight * slopes
    return found, found, weight + slopes + 1


def _of_change(now: Layer, before: Layer) -> Measured:
    de = now.slopes - before.slopes
    weight, moved = now.weight, squared(de)
    one, reach = weight * moved, weight + moved + 1
    if now.inputs is before.inputs:
        return one, one, reach
    da = now.inputs - before.inputs
    shifted, slopes = squared(da), squared(before.slopes)
    other = slopes * shifted
    crossed = 2 * _dot(de, before.slopes) * _dot(now.inputs, da)
    return one + other + crossed, 2 * (one + other), reach + shifted + slopes


def _of_sequence(layer: Layer) -> Measured:
    """Return the norms of gradients that are sums over the rows of each record."""
    from opacus.grad_sample.linear import compute_linear_norm_sample

    shape = layer.slopes.shape[:2]
    inputs, slopes = layer.inputs.double().flatten(0, 1), layer.slopes.double().flatten(0, 1)
    like = torch.nn.Linear(inputs.shape[-1], slopes.shape[-1], bias=layer.bias, device="meta")
    norms: dict[torch.nn.Parameter, Tensor] = compute_linear_norm_sample(like, [inputs], slopes)
    found = _total([norm.square() for norm in norms.values()]).reshape(shape)
    weights, squares = layer.weight, squared(layer.slopes)
    uncancelled = (weights * squares).sqrt().sum(dim=-1).square()
    return found, uncancelled, weights.sum(dim=-1) + squares.sum(dim=-1) + 1


def _room(layers: Sequence[Layer], dtype: torch.dtype) -> float:
    """Return the slack for gradients of these layers, the rows of a sequence counted."""
    rows = max(math.prod(one.slopes.shape[2:-1]) for one in layers)
    widths = max(one.inputs.shape[-1] + one.slopes.shape[-1] for one in layers)
    return slack(dtype, widths + rows**2 + len(layers), rows)


def _alone(
    now: Sequence[Layer],
    before: Sequence[Layer] | None,
    odd: Bool[Tensor, "n m"],
    clip_norms: Float[Tensor, " n"],
    room: float,
) -> tuple[list[Float[Tensor, "n o k"]], Float[Tensor, " n"]]:
    """Return clipped sums of a few records, formed one by one in float64: biases, then weights."""
    shapes = [(one.slopes.shape[-1], one.inputs.shape[-1] + 1) for one in now]
    sums = clip_norms.new_zeros((len(odd), sum(o * i for o, i in shapes)))
    shortened = clip_norms.new_zeros(len(odd))
    for rows in odd.nonzero().split(max(1, _ALONE // sums.shape[1])):
        vectors = _formed(now, rows)
        if before is not None:
            vectors = vectors - _formed(before, rows)
        clipped = clip_long(vectors, clip_norms[rows[:, 0]], room)
        sums.index_add_(0, rows[:, 0], clipped.sums)
        shortened.index_add_(0, rows[:, 0], clipped.shortened)
    parts = sums.split([o * i for o, i in shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)], shortened


def _formed(layers: Sequence[Layer], rows: Int[Tensor, "k 2"]) -> Float[Tensor, "k d"]:
    """Return records' gradients; in float64 products of what float32 holds are exact."""
    found = []
    for layer in layers:
        inputs, slopes = (
            seen[rows[:, 0], rows[:, 1]].double().reshape(len(rows), -1, seen.shape[-1])
            for seen in (layer.inputs, layer.slopes)
        )
        ones = inputs.new_full((*inputs.shape[:-1], 1), float(layer.bias))
        found.append((slopes.mT @ torch.cat([ones, inputs], dim=-1)).flatten(1))
    return torch.cat(found, dim=1)


def _outer(inputs: Float[Tensor, "n m *t i"], slopes: Float[Tensor, "n m *t o"]) -> Tensor:
    """Return slopes^T inputs [n, o, i]; the other way round it is 2.6 times slower here."""
    return slopes.flatten(1, -2).mT @ inputs.flatten(1, -2)


def _like(each: Tensor, seen: Tensor) -> Tensor:
    """Return what there is of each record [n, m] with axes to fit what a layer has seen."""
    return each.reshape(*each.shape, *(1 for _ in seen.shape[2:]))


def squared(vectors: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """Return squared norms in float64."""
    return _dot(vectors, vectors)


def _dot(one: Float[Tensor, "*n k"], other: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """Return inner products, summed in float64, in pieces that stay in the processor's cache."""
    rows, wide = one.shape[-2], one.numel() // max(1, one.shape[-2])
    step = max(1, _TOGETHER // max(1, wide))
    if step >= rows:
        return (one * other).sum(dim=-1, dtype=torch.float64)
    pairs = zip(one.split(step, dim=-2), other.split(step, dim=-2), strict=True)
    return torch.cat([(a * b).sum(dim=-1, dtype=torch.float64) for a, b in pairs], dim=-1)


def _total(parts: Sequence[Float[Tensor, "*n"]]) -> Float[Tensor, "*n"]:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
