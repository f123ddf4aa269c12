"""Blocks of directions that server and client make alike, and what slopes along them stand for.

    g = (d / m) sum_j s_j u_j,   u_1 .. u_m orthonormal rows of a random basis       E[g] = grad f

A client that has drawn slopes along block k of its rows says m numbers, and whoever knows the seed
and its first row has the vector of d floats. Rows: see fedzo.estimation.directions.basis_blocks;
the blocks of a client follow each other in its rows, none of them reaching over the end of a basis.
Replay:

    v_k = v + sum_{j <= k} g_j,   x_0 - x_K = lr sum_{k < K} v_k = lr [ K v + sum_j (K - j) g_j ]
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.estimation.directions import basis_blocks

_LANE = 1 << 36
"""Bases of one of up to four purposes, in dimensions up to 2^24."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of at most `wanted` directions of dimension `dim` in the bases of a seed."""

    dim: int
    wanted: int
    seed: int
    problem: int = 0

    @property
    def size(self) -> int:
        """Directions in a block: m."""
        return min(self.wanted, self.dim)

    def first_rows(self, owners: Int[Tensor, " n"], count: int, *, lane: int) -> Int[Tensor, " n"]:
        """Return where each owner's rows begin, for `count` blocks that are nobody else's.

        Owners of different lanes (purposes) share no basis either.
        """
        bases = -(-count // (self.dim // self.size))
        return (owners * bases + lane * _LANE) * self.dim

    def directions(self, first_row: Int[Tensor, " n"], block: int) -> Float[Tensor, "n m d"]:
        """Return one block of each owner."""
        per_basis = self.dim // self.size
        offset = block // per_basis * self.dim + block % per_basis * self.size
        return basis_blocks(
            first_row + offset, self.size, self.dim, seed=self.seed, problem=self.problem
        )

    def combine(
        self, slopes: Float[Tensor, "n m"], first_row: Int[Tensor, " n"], block: int
    ) -> Float[Tensor, "n d"]:
        """Return the gradient estimates that these slopes stand for."""
        pairs = zip(slopes, first_row.split(1), strict=True)
        rows = [own @ self.directions(row, block)[0].to(own) for own, row in pairs]
        return self.dim / self.size * torch.stack(rows)

    def project(
        self, vectors: Float[Tensor, "n d"], first_row: Int[Tensor, " n"], block: int
    ) -> Float[Tensor, "n m"]:
        """Return the slopes of functions with these gradients along each owner's block."""
        pairs = zip(vectors, first_row.split(1), strict=True)
        return torch.stack([self.directions(row, block)[0].to(own) @ own for own, row in pairs])

    def replay(
        self,
        slopes: Float[Tensor, "n k"],
        first_row: Int[Tensor, " n"],
        start: Float[Tensor, " d"],
        lr: float,
    ) -> Float[Tensor, "n d"]:
        """Return x_K - x_0 of local steps that began along `start` and changed it by `slopes`.

        slopes: the blocks 1, 2, ... of each owner, one after the other; K is one more than they
        are.
        """
        parts = slopes.split(self.size, dim=1)
        steps = len(parts) + 1
        total = (steps * start).expand(len(slopes), -1)
        for j, part in enumerate(parts, start=1):
            total = total + (steps - j) * self.combine(part, first_row, j)
        return -lr * total


@dataclass(frozen=True, slots=True)
class Along:
    """The blocks of each client's own directions, from `first_block` on, that slopes are along."""

    blocks: Blocks
    first_row: Int[Tensor, " n"]
    first_block: int = 0

    def vectors(self, slopes: Float[Tensor, "n k"]) -> Float[Tensor, "n s d"]:
        """Return the gradients, one a block, that slopes stand for."""
        parts = enumerate(slopes.split(self.blocks.size, dim=1), start=self.first_block)
        return torch.stack(
            [self.blocks.combine(part, self.first_row, block) for block, part in parts], dim=1
        )

    def slopes(self, vectors: Float[Tensor, "n s d"]) -> Float[Tensor, "n k"]:
        """Return the slopes that clients with these gradients would tell."""
        steps = enumerate(vectors.unbind(dim=1), start=self.first_block)
        told = [self.blocks.project(own, self.first_row, block) for block, own in steps]
        return torch.cat(told, dim=1)

    def select(self, rows: Int[Tensor, " k"]) -> "Along":
        """Return the part of the clients at these positions."""
        return replace(self, first_row=self.first_row[rows])
