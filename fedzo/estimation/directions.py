"""Keyed samplers of search directions.

| kind        | law of a direction u                          | scale |
|-------------|-----------------------------------------------|-------|
| gaussian    | N(0, I_d)                                     | 1     |
| rademacher  | uniform on {-1, 1}^d                          | 1     |
| sphere      | uniform on the unit sphere                    | d     |
| orthogonal  | blocks of at most d orthonormal vectors, Haar | d     |
| coordinate  | +-e_j, distinct random axes, random signs     | d     |

`scale` makes the estimate unbiased: E[scale * <a, u> u] = a, so a gradient is
(scale / m) sum_i c_i u_i with directional slopes c_i. For linear objectives the second moment
relative to |a|^2 is (d+m+1)/m (gaussian), (d+m-1)/m (sphere, rademacher) and d/m (orthogonal,
coordinate, m <= d): orthogonal is never worse.

The bits depend on the generator, the kind, the shape and the dtype alone: a direction made by a
client is made again, bit for bit, by a server that holds the key (orthogonal: on the same kind of
processor, because the factorization is LAPACK's). Shapes: directions [m, d] or [n, m, d].
"""

import functools
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.randomness import stream

DirectionKind = Literal["gaussian", "sphere", "rademacher", "orthogonal", "coordinate"]
DIRECTION_KINDS: tuple[DirectionKind, ...] = get_args(DirectionKind)


def direction_scale(kind: DirectionKind, dim: int) -> float:
    """Return the factor that makes the gradient estimate unbiased for this kind."""
    return 1.0 if kind in ("gaussian", "rademacher") else float(dim)


def sample_directions(
    kind: DirectionKind,
    num_directions: int,
    dim: int,
    *,
    generator: np.random.Generator,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "m d"]:
    """Draw `num_directions` directions of one kind."""
    return sample_cohort_directions(kind, num_directions, dim, generators=[generator], dtype=dtype)[
        0
    ]


def sample_cohort_directions(
    kind: DirectionKind,
    num_directions: int,
    dim: int,
    *,
    generators: Sequence[np.random.Generator],
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "n m d"]:
    """Draw directions for a cohort, row i from generators[i].

    Raises ConfigError for more coordinate directions than dimensions.
    """
    if kind == "coordinate":
        return _coordinates(num_directions, dim, generators, dtype)
    if kind == "rademacher":
        return _signs(num_directions, dim, generators, dtype)
    normals = _normals(num_directions, dim, generators, dtype)
    if kind == "sphere":
        return torch.nn.functional.normalize(normals, dim=-1)
    return _orthonormal_blocks(normals) if kind == "orthogonal" else normals


def _normals(
    m: int, d: int, generators: Sequence[np.random.Generator], dtype: torch.dtype
) -> Float[Tensor, "n m d"]:
    block = np.empty((len(generators), m, d), np.float64 if dtype == torch.float64 else np.float32)
    for row, generator in zip(block, generators, strict=True):
        if dtype == torch.float64:
            generator.standard_normal(out=row)
        else:
            generator.standard_normal(dtype=np.float32, out=row)
    drawn = torch.from_numpy(block)
    return drawn if drawn.dtype == dtype else drawn.to(dtype)


def _signs(
    m: int, d: int, generators: Sequence[np.random.Generator], dtype: torch.dtype
) -> Float[Tensor, "n m d"]:
    size = (m * d + 7) // 8
    packed = np.stack([np.frombuffer(g.bytes(size), dtype=np.uint8) for g in generators])
    bits = np.unpackbits(packed, axis=-1, count=m * d)
    return torch.from_numpy(bits).reshape(len(generators), m, d).to(dtype).mul_(2).sub_(1)


def _coordinates(
    m: int, d: int, generators: Sequence[np.random.Generator], dtype: torch.dtype
) -> Float[Tensor, "n m d"]:
    if m > d:
        raise ConfigError(
            f"num_directions={m} coordinate directions need num_directions <= dim, which is {d}"
        )
    rows = torch.from_numpy(np.stack([g.choice(d, m, replace=False) for g in generators]))
    signs = _signs(m, 1, generators, dtype)
    result = torch.zeros(len(generators), m, d, dtype=dtype)
    return result.scatter_(-1, rows.unsqueeze(-1), signs)


def _orthonormal_blocks(normals: Float[Tensor, "n m d"]) -> Float[Tensor, "n m d"]:
    """Orthonormalize rows in blocks of at most d; the signs make the blocks Haar distributed.

    One factorization a client: in a batch, LAPACK's rounding depends on a matrix's place in memory.
    """
    for rows in normals:
        for block in rows.split(normals.shape[-1]):
            q, r = torch.linalg.qr(block.T.clone())
            block.copy_((q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)).T)
    return normals


def basis_blocks(
    first: Int[Tensor, " n"], count: int, dim: int, *, seed: int, problem: int = 0
) -> Float[Tensor, "n m d"]:
    """Return blocks of `count` rows of an endless sequence of random orthonormal bases.

    Block i starts at row first[i]; row r is row r mod d of basis r // d. A basis is the type II
    discrete cosine transform with its rows in random order and the signs of its columns random:
    E[u u^T] = I / d, every d rows are orthonormal, and a row costs d numbers, where a Haar basis
    costs d^2 memory and d^3 time. The signs make the rows as rough as noise.
    """
    first = first.cpu()
    unique, places = first.unique(return_inverse=True)
    blocks = np.empty((len(unique), count, dim))
    for block, start in zip(blocks, unique.tolist(), strict=True):
        _fill(block, seed, problem, start)
    drawn = torch.from_numpy(blocks)
    if len(unique) == 1:
        return drawn.expand(len(first), -1, -1)
    return drawn if torch.equal(unique, first) else drawn[places]


def _fill(block: NDArray[np.float64], seed: int, problem: int, start: int) -> None:
    """Write the rows from `start` on into a block, as far as a basis reaches at a time."""
    count, dim = block.shape
    for first in range(start - start % dim, start + count, dim):
        signs, order = _basis(seed, problem, first // dim, dim)
        rows = slice(max(start, first), min(start + count, first + dim))
        waves = block[rows.start - start : rows.stop - start]
        frequency = order[rows.start - first : rows.stop - first, None]
        np.multiply(np.pi * frequency / dim, np.arange(dim) + 0.5, out=waves)
        np.cos(waves, out=waves)
        waves *= signs
        waves *= np.sqrt(np.where(frequency, 2, 1) / dim)


@functools.lru_cache(maxsize=16)
def _basis(
    seed: int, problem: int, index: int, dim: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = stream(seed, "basis", problem, index)
    return generator.choice(np.array([-1.0, 1.0]), dim), generator.permutation(dim)
