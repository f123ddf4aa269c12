"""Rounding: why what is clipped is never longer than C, whatever a record holds.

    f = min(1, C / sqrt(N^2 + s T)),    s = 16 u + 4 k 2^-53

of a vector v that is computed with unit roundoff u (2^-24 in float32, 2^-53 in float64), whose
squared norm N^2 was summed of k products in float64. T bounds what cancels in it: the square of the
sum of the norms of v's parts, N^2 itself where v is one part. Then |f v| <= C as computed:
products, factors and parts are rounded six times at most, which lengthens f v by 6 u sqrt(T) f; the
products behind N^2 may make it too small by 2 u T + 4 k 2^-53 T; and

    (N + 6 u sqrt(T))^2 <= N^2 + 12 u T + 36 u^2 T        for N^2 <= T.

So clipping shrinks by 8 u more than it would in exact arithmetic: 2^-21 in float32, 2^-50 in
float64. That holds while nothing over- or underflows, and is no more than that while s T is small
beside N^2 or C^2. Records for which either is in doubt are formed one by one in float64, and scaled
by their largest element before their norm is taken (`clip_long`).

A sum of m records in unit roundoff u is off by at most m u sum |v| <= m^2 u C, whatever its order;
it is next to nothing in float64, while in float32 its last digits, m u C, are of the size of C for
m = 10^7. Sums are held to m C besides (`hold`): a projection, which moves no two sums apart.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TOLERANCE = 2.0**-10
"""Rounding that a squared norm may hide, beside it or C^2, before a record is formed by itself."""


@dataclass(frozen=True, slots=True)
class Clipped:
    """Sums of clipped vectors [n, d], and how many of each client's were shortened [n]."""

    sums: Float[Tensor, "n d"]
    shortened: Float[Tensor, " n"]


def slack(dtype: torch.dtype, terms: int, rows: int = 1) -> float:
    """Return s, for vectors of a type whose squared norms are sums of so many products.

    rows: of which each element of a vector is a sum.
    """
    return (7 + rows) * torch.finfo(dtype).eps + 4 * terms * 2.0**-53


def shrink(
    norms: Float[Tensor, "*n"], clip_norm: float | Float[Tensor, "*#n"]
) -> Float[Tensor, "*n"]:
    """Return min(1, C / norm), and 0 for norms that are not finite and for 0 / 0."""
    return (clip_norm / norms).nan_to_num_(nan=0.0).clamp_(max=1.0)


def representable(
    factors: Float[Tensor, "*n"], clip_norms: Float[Tensor, "*#n"], dtype: torch.dtype
) -> Bool[Tensor, "*n"]:
    """Return where multiplying in this type does not underflow."""
    tiny = torch.finfo(dtype).tiny
    least = max(tiny * 2.0**26, 2.0**-450)
    return (factors >= tiny) & (clip_norms >= least)


def clip_rows(vectors: Float[Tensor, "n d"], clip_norm: float | Float[Tensor, " n"]) -> Clipped:
    """Return the clipped vectors themselves, and which of them were shortened (0 or 1).

    Vectors that are not finite become zeros.
    """
    vectors, factors, shortened = weighed(vectors, clip_norm)
    return Clipped(vectors * factors.unsqueeze(1), shortened)


def weighed(
    vectors: Float[Tensor, "n d"], clip_norm: float | Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return vectors and factors whose products are clipped, and which were shortened.

    The vectors are those that were given, but for what is not finite, too long or too short for
    their type: those are clipped already, and their factor is 1.
    """
    most = torch.as_tensor(clip_norm, dtype=torch.float64, device=vectors.device)
    norms = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
    room = slack(vectors.dtype, vectors.shape[1])
    factors = shrink(norms * (1 + room) ** 0.5, most)
    plain = norms.isfinite() & (representable(factors, most, vectors.dtype) | (most == 0))
    shortened = factors < 1
    if not bool(plain.all()):
        odd = ~plain
        clipped = clip_long(vectors[odd].double(), most.expand(len(vectors))[odd], room)
        vectors = vectors.clone()
        vectors[odd] = clipped.sums.to(vectors.dtype)
        factors = factors.masked_fill(odd, 1.0)
        shortened[odd] = clipped.shortened > 0
    return vectors, factors.to(vectors.dtype), shortened.to(vectors.dtype)


def clip_long(
    vectors: Float[Tensor, "k d"], clip_norms: Float[Tensor, " k"], room: float
) -> Clipped:
    """Return clipped vectors in float64, of any length, those that are not finite as zeros."""
    finite = vectors.isfinite().all(dim=1, keepdim=True)
    vectors = vectors.where(finite, 0.0)
    top = vectors.abs().amax(dim=1, keepdim=True)
    unit = (vectors / top).where(top > 0, 0.0)
    lengths = torch.linalg.vector_norm(unit, dim=1, keepdim=True) * (1 + room) ** 0.5
    most = clip_norms.unsqueeze(1)
    long = (top > 0) & (most / top < lengths)
    clipped = torch.where(long, unit * (most / lengths), vectors)
    return Clipped(clipped, long[:, 0].double() + (~finite[:, 0]).double())


def hold(found: Clipped, most: Float[Tensor, " n"]) -> Clipped:
    """Return sums no longer than `most`, those of failed clients (NaN) as they are."""
    norms = torch.linalg.vector_norm(found.sums, dim=1, dtype=torch.float64)
    long = norms > most
    if not bool(long.any()):
        return found
    held = torch.where(long.unsqueeze(1), clip_rows(found.sums, most).sums, found.sums)
    return Clipped(held, found.shortened)
