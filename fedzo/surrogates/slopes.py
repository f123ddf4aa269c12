"""A derivative Gaussian process on slopes between queried points, joint over all clients.

    row: slope s = (y(b) - y(a)) / |b - a| along u = (b - a) / |b - a| at m = (a + b) / 2, averaged
         over its owners
    K0[r, r'] = p1 <u, u'> + p2 <u, D> <u', D> + c^2 <m~, u> <m~', u'>,  D = m - m', m~ = m - center
    p1 = phi'(t) / phi'(0),  p2 = 2 phi''(t) / phi'(0),  t = |D|^2          (p1(0) = 1)
    B[r, r']  = 1 / (1 + rho) + rho / (1 + rho) (<w, w'> - 1 / N) N / (N - 1)       (co-kriging)
    K = B * K0 + v <w, w'> P / (|b - a| |b' - a'|) + jitter I,    alpha = K^-1 s
    grad F(x) ~ 1 / (1 + rho) sum_r alpha_r [p1 u + p2 <u, x - m> (x - m) + c^2 <m~, u> x~]

Clients are f_i = F + h_i with sum_i h_i = 0 over all N clients and var(h) / var(F) = rho; a row
owned by several clients has their equal weights w. Rows of all clients in common have B = 1 / (1 +
rho), so their heterogeneity cancels exactly; rows of a sample of clients, or of one, are shrunk by
what that sample may deviate. v is the variance of the observation noise in units of the slopes'
prior variance, and P[r, r'] counts the end points that two rows share, with sign: rows from the
same anchor share its noise. The curvature c is a trend: an isotropic quadratic around the center.

The slope of a quadratic between two points is its derivative at the midpoint, so rows are exact
there whatever their length; values that differ by 1e-3 of their range make well conditioned slopes.
Shu et al., arXiv 2308.04077, lemma 1, is the value form of the derived Gaussian process; the slope
form, co-kriging over clients and the noise of shared anchors are fedzo's own. Shapes: d dim, r
rows, N clients, o owners of a row. Cost: r^3 / 3 + r^2 d a fit, r d a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.surrogates.kernels import KernelName

JITTER = 1e-6
"""Added to the diagonal, in units of its mean, and of the root of that where it exceeds 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeRows:
    """Observed slopes; owners [r, o] are client ids, padded with -1.

    start and end are numbers of the two points: rows that have one in common share its noise.
    """

    direction: Float[Tensor, "r d"]
    midpoint: Float[Tensor, "r d"]
    length: Float[Tensor, " r"]
    slope: Float[Tensor, " r"]
    owners: Int[Tensor, "r o"]
    start: Int[Tensor, " r"]
    end: Int[Tensor, " r"]

    def __len__(self) -> int:
        return len(self.slope)

    def newest(self, count: int) -> "SlopeRows":
        """Return the last rows."""
        return self.take(slice(max(0, len(self) - count), None))

    def take(self, rows: slice | Tensor) -> "SlopeRows":
        """Return some of the rows."""
        return SlopeRows(**{name: getattr(self, name)[rows] for name in self.__slots__})


def no_rows(x: Float[Tensor, " d"]) -> SlopeRows:
    """Return an empty table for points like x."""
    ids = x.new_empty(0, dtype=torch.int64)
    table = x.new_empty(0, len(x))
    return SlopeRows(
        direction=table,
        midpoint=table,
        length=x.new_empty(0),
        slope=x.new_empty(0),
        owners=ids.unsqueeze(1),
        start=ids,
        end=ids,
    )


def rows_between(
    a: Float[Tensor, "r d"],
    b: Float[Tensor, "r d"],
    change: Float[Tensor, " r"],
    *,
    owners: Int[Tensor, "r o"],
    start: Int[Tensor, " r"],
    end: Int[Tensor, " r"],
) -> SlopeRows:
    """Return the rows of value changes y(b) - y(a); points that coincide give none."""
    offset = b - a
    length = offset.norm(dim=1)
    rows = SlopeRows(
        direction=offset.div_(length.unsqueeze(1)),
        midpoint=(a + b).div_(2),
        length=length,
        slope=change / length,
        owners=owners,
        start=start,
        end=end,
    )
    apart = length > 0
    return rows if bool(apart.all()) else rows.take(apart)


def rows_from(
    a: Float[Tensor, "r d"],
    b: Float[Tensor, "r d"],
    change: Float[Tensor, " r"],
    *,
    start: int,
    first_end: int,
) -> SlopeRows:
    """Return the rows of one client's changes from one point, numbered `start`, to others.

    Those have the numbers from `first_end` on. Changes that are not finite give none.
    """
    told = change.isfinite()
    count = int(told.sum())
    return rows_between(
        a[told],
        b[told],
        change[told],
        owners=torch.zeros(count, 1, dtype=torch.int64),
        start=torch.full((count,), start),
        end=torch.arange(first_end, first_end + len(told))[told],
    )


def join_rows(parts: Sequence[SlopeRows], *, most: int | None = None) -> SlopeRows:
    """Put tables one below the other; of more than `most` rows, the newest.

    Older ones are left out before anything is copied.
    """
    if most is not None:
        parts = newest(parts, most)
    width = max(part.owners.shape[1] for part in parts)
    padded = [
        replace(
            part,
            owners=torch.nn.functional.pad(
                part.owners, (0, width - part.owners.shape[1]), value=-1
            ),
        )
        for part in parts
    ]
    names = SlopeRows.__slots__
    return SlopeRows(**{n: torch.cat([getattr(part, n) for part in padded]) for n in names})


@runtime_checkable
class Table(Protocol):
    """Rows in the order in which they came."""

    def __len__(self) -> int: ...

    def newest(self, count: int) -> Self: ...


TableT = TypeVar("TableT", bound=Table)


def newest(parts: Sequence[TableT], most: int) -> list[TableT]:
    """Return the newest rows of tables that follow each other, table by table."""
    kept: list[TableT] = []
    for part in reversed(parts):
        kept.insert(0, part.newest(most - sum(map(len, kept))))
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopePrior:
    """Hyper-parameters: lengthscale and 1 / curvature in units of x, rho and noise as above."""

    kernel: KernelName
    lengthscale: float
    rho: float = 0.0
    curvature: float = 0.0
    noise: float = 0.0
