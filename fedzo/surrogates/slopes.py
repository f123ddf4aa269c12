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

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from fedzo.surrogates.kernels import KernelName, radial, squared_distances

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
    ids = torch.empty(0, dtype=torch.int64)
    table = x.new_empty(0, len(x))
    return SlopeRows(
        direction=table,
        midpoint=table,
        length=x.new_empty(0),
        slope=x.new_empty(0),
        owners=torch.empty(0, 1, dtype=torch.int64),
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
    apart = length > 0
    length = length[apart]
    return SlopeRows(
        direction=offset[apart] / length.unsqueeze(1),
        midpoint=((a + b) / 2)[apart],
        length=length,
        slope=change[apart] / length,
        owners=owners[apart],
        start=start[apart],
        end=end[apart],
    )


def join_rows(parts: list[SlopeRows]) -> SlopeRows:
    """Put tables one below the other."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopePrior:
    """Hyper-parameters: lengthscale and 1 / curvature in units of x, rho and noise as above."""

    kernel: KernelName
    lengthscale: float
    rho: float = 0.0
    curvature: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a kernel matrix between two tables needs of them, whatever the hyper-parameters."""

    aligned: Float[Tensor, "r q"]
    across: Float[Tensor, "r q"]
    squared: Float[Tensor, "r q"]
    trend: Float[Tensor, "r q"]
    overlap: Float[Tensor, "r q"]
    noise: Float[Tensor, "r q"]

    def covariance(self, prior: SlopePrior, num_clients: int) -> Float[Tensor, "r q"]:
        """Return B * K0 + noise, without the jitter."""
        phi = radial(prior.kernel, self.squared, prior.lengthscale)
        origin = radial(prior.kernel, self.squared.new_zeros(()), prior.lengthscale).first
        shape = (phi.first * self.aligned + 2 * phi.second * self.across) / origin
        if prior.curvature:
            shape = shape + prior.curvature**2 * self.trend
        covariance = shape * _client_covariance(self.overlap, prior.rho, num_clients)
        return covariance + prior.noise * self.noise if prior.noise else covariance


def _client_covariance(overlap: Tensor, rho: float, num_clients: int) -> Tensor:
    """Return B of rows whose owners' weights have these inner products."""
    common = 1 / (1 + rho)
    if num_clients == 1:
        return torch.full_like(overlap, common)
    own = rho / (1 + rho) * num_clients / (num_clients - 1)
    return common + own * (overlap - 1 / num_clients)


def geometry(a: SlopeRows, b: SlopeRows, center: Float[Tensor, " d"]) -> Geometry:
    """Return the geometry of two tables of rows; the trend is about the center."""
    from_center_a, from_center_b = a.midpoint - center, b.midpoint - center
    along_a = (a.direction * from_center_a).sum(1)
    along_b = (b.direction * from_center_b).sum(1)
    left = along_a.unsqueeze(1) - a.direction @ from_center_b.T
    right = -left.T if a is b else from_center_a @ b.direction.T - along_b
    overlap = _overlap(a.owners, b.owners).to(a.slope)
    shared = (
        _equal(a.start, b.start)
        + _equal(a.end, b.end)
        - _equal(a.start, b.end)
        - _equal(a.end, b.start)
    )
    return Geometry(
        aligned=a.direction @ b.direction.T,
        across=left * right,
        squared=squared_distances(from_center_a, from_center_b),
        trend=torch.outer(along_a, along_b),
        overlap=overlap,
        noise=overlap * shared / torch.outer(a.length, b.length),
    )


def _equal(a: Int[Tensor, " r"], b: Int[Tensor, " q"]) -> Float[Tensor, "r q"]:
    return (a.unsqueeze(1) == b).to(torch.float64)


def _overlap(a: Int[Tensor, "r o"], b: Int[Tensor, "q p"]) -> Float[Tensor, "r q"]:
    """Return <w, w'> of the owners' equal weights."""
    highest = max(int(ids.max()) if ids.numel() else -1 for ids in (a, b))
    return torch.from_numpy((_weights(a, highest) @ _weights(b, highest).T).toarray())


def _weights(owners: Int[Tensor, "r o"], highest: int) -> sparse.csr_array:
    """Return each row's weights over clients 0 to highest."""
    rows, places = (owners >= 0).nonzero(as_tuple=True)
    share = 1.0 / (owners >= 0).sum(1).clamp(min=1).double()
    entries = (share[rows].numpy(), (rows.numpy(), owners[rows, places].numpy()))
    return sparse.csr_array(  # type: ignore[no-untyped-call]
        entries, shape=(len(owners), highest + 1), dtype=np.float64
    )
