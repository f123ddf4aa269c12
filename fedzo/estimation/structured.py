"""Directions made of others: masked, scaled, given, summed, of low rank, in a subspace.

    Masked      u_j m_j                              m: one byte a number of x
    Within      u_j in a stretch of x, 0 elsewhere
    Scaled      u_j s_j                              s: a number a number of x
    Fixed       v_j                                  a vector that is held
    Axis        1 at one place, 0 elsewhere
    Combination sum_i alpha_i u_i
    LowRank     U V^T / sqrt(r) in every matrix      U [m, r], V [n, r] keyed normals
    Projected   sqrt(m n) / r U Z V^T                U, V orthonormal and held, Z [r, r] keyed

A tensor of more than two axes counts as a matrix of its first axis; one of fewer gets the keyed
numbers as they are. Matrices are made in chunks of rows that are the same however a direction is
cut, so a probe and a step see the same bits. Covariance of keys, LowRank
and Projected: the unit matrix. Memory besides what is held: a chunk of 2^16 numbers or one row.
"""

import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Bool, Float
from torch import Tensor

from fedzo.estimation.direction import Direction
from fedzo.estimation.keys import Key
from fedzo.estimation.view import View

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Masked(Direction):
    """A direction with some of its numbers set to 0."""

    inner: Direction
    mask: Bool[Tensor, " d"]

    def fill_(self, out: Float[Tensor, " k"], start: int) -> Float[Tensor, " k"]:
        return self.inner.fill_(out, start).mul_(self.mask[start : start + len(out)])


@dataclass(frozen=True, slots=True)
class Within(Direction):
    """A direction that is 0 outside of a stretch of x, which is not moved there."""

    inner: Direction
    span: tuple[int, int]

    def fill_(self, out: Float[Tensor, " k"], start: int) -> Float[Tensor, " k"]:
        low, high = (min(max(end - start, 0), len(out)) for end in self.span)
        out[:low], out[high:] = 0.0, 0.0
        self.inner.fill_(out[low:high], start + low)
        return out


@dataclass(frozen=True, slots=True)
class Scaled(Direction):
    """A direction with each number times a factor of its own."""

    inner: Direction
    factors: Float[Tensor, " d"]

    def fill_(self, out: Float[Tensor, " k"], start: int) -> Float[Tensor, " k"]:
        return self.inner.fill_(out, start).mul_(self.factors[start : start + len(out)])


@dataclass(frozen=True, slots=True)
class Fixed(Direction):
    """A vector that is held."""

    vector: Float[Tensor, " d"]

    def fill_(self, out: Float[Tensor, " k"], start: int) -> Float[Tensor, " k"]:
        return out.copy_(self.vector[start : start + len(out)])


@dataclass(frozen=True, slots=True)
class Axis(Direction):
    """The unit vector of one number of x."""

    number: int

    @property
    def span(self) -> tuple[int, int]:
        """Return where the direction is not 0."""
        return self.number, self.number + 1

    def fill_(self, out: Float[Tensor, " k"], start: int) -> Float[Tensor, " k"]:
        out.zero_()
        if start <= self.number < start + len(out):
            out[self.number - start] = 1.0
        return out


@dataclass(frozen=True, slots=True)
class Combination(Direction):
    """A sum of directions, each times a factor."""

    terms: Sequence[tuple[Direction, float]]

    def fill_(self, out: Float[Tensor, " k"], start: int) -> Float[Tensor, " k"]:
        out.zero_()
        for inner, alpha in self.terms:
            u = inner.draw(start, start + len(out), dtype=out.dtype, device=out.device)
            out.add_(u.mul_(alpha))
        return out


class Matrices(Direction):
    """A direction that is a product in every matrix of a view, and keyed numbers elsewhere.

    view: the tensors that the direction knows. plain: what tensors that are no matrices get.
    """

    __slots__ = ()
    view: View

    @property
    @abstractmethod
    def plain(self) -> Key: ...

    @abstractmethod
    def rows(self, name: str, low: int, high: int, like: Tensor) -> Float[Tensor, "rows n"]:
        """Return rows of the matrix of that name, on the device of `like`."""

    def fill_(self, out: Float[Tensor, " k"], start: int) -> Float[Tensor, " k"]:
        stop = start + len(out)
        out.zero_()
        at = max(0, bisect_right(self.view.firsts, start) - 1)
        while at < len(self.view) and self.view.firsts[at] < stop:
            first, tensor = self.view.firsts[at], self.view.tensors[at]
            low, high = max(start, first), min(stop, first + tensor.numel())
            target = out[low - start : max(low, high) - start]
            if tensor.dim() < 2:
                self.plain.fill_(target, low)
            else:
                self._fill_matrix(target, self.view.names[at], matrix_sizes(tensor), low - first)
            at += 1
        return out

    def _fill_matrix(self, out: Tensor, name: str, sizes: tuple[int, int], start: int) -> None:
        _, n = sizes
        stop = start + len(out)
        for low, high in _chunks(sizes, start, stop):
            made = self.rows(name, low, high, out).reshape(-1)
            begin, end = max(start, low * n), min(stop, high * n)
            out[begin - start : end - start] = made[begin - low * n : end - low * n]


@dataclass(frozen=True, slots=True)
class LowRank(Matrices):
    """Chen et al., "Enhancing Zeroth-Order Fine-Tuning for Language Models with
    Low-Rank Structures" (LOZO), ICLR 2025: U of `left`, V of `right`.

    Differs from the paper: 1 / sqrt(r) in the direction, so that slopes need no factor.
    """

    view: View
    left: Key
    right: Key
    rank: int

    @property
    def plain(self) -> Key:
        return self.left

    def rows(self, name: str, low: int, high: int, like: Tensor) -> Float[Tensor, "rows n"]:
        tensor = self.view.tensors[self.view.names.index(name)]
        r, n = self.rank, matrix_sizes(tensor)[1]
        u = _of(self.left, name).draw(low * r, high * r, device=like.device).view(-1, r)
        v = _of(self.right, name).draw(0, n * r, device=like.device).view(n, r)
        return (u @ v.T).div_(math.sqrt(r))


@dataclass(frozen=True, slots=True)
class Projected(Matrices):
    """Yu et al., "SubZero: Random Subspace Zeroth-Order Optimization for Memory-Efficient LLM
    Fine-Tuning", 2024: bases by name, U [m, r] and V [n, r] with orthonormal columns.
    """

    view: View
    key: Key
    bases: Mapping[str, tuple[Float[Tensor, "m r"], Float[Tensor, "n s"]]]

    @property
    def plain(self) -> Key:
        return self.key

    def rows(self, name: str, low: int, high: int, like: Tensor) -> Float[Tensor, "rows n"]:
        u, v = self.bases[name]
        r, s = u.shape[1], v.shape[1]
        z = _of(self.key, name).draw(0, r * s, device=like.device).view(r, s)
        scale = math.sqrt(len(u) * len(v) / (r * s))
        return (u[low:high] @ (z @ v.T)).mul_(scale)


def _of(key: Key, name: str) -> Key:
    """Return the key of one matrix of a direction."""
    return replace(key, parts=(*key.parts, name))


def matrix_sizes(tensor: Tensor) -> tuple[int, int]:
    """Return the rows and columns of a tensor that is read as a matrix."""
    return tensor.shape[0], tensor[:1].numel()


def _chunks(sizes: tuple[int, int], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Return the chunks of rows, always cut alike, that hold these numbers of the matrix."""
    m, n = sizes
    step = max(1, _CHUNK // n)
    first = start // n // step * step
    for low in range(first, -(-stop // n), step):
        yield low, min(m, low + step)
