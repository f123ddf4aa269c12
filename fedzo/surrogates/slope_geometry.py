"""What the covariance of slopes needs of rows, whatever the hyper-parameters.

Inner products and distances are made once for a table and a center, and shared by all who ask:
every trial of a fit, the posterior, and the posterior with more rows (SlopePosterior.extended),
for which only the strip of the new rows is made. Everything as defined in fedzo.surrogates.slopes;
shapes as there. Cost: three products of r^2 d, and a few matrices of r^2 floats.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.surrogates.kernels import derivatives, distances_of_products, first_at_zero
from fedzo.surrogates.slopes import SlopePrior, SlopeRows

_ROWS = 64
BLOCK = 1 << 18
"""Floats of an intermediate result of as many columns as x has: 2 MB."""


@dataclass(frozen=True, slots=True)
class CenteredRows:
    """Rows seen from a center: m~ = midpoint - center, <u, m~> and |m~|^2."""

    rows: SlopeRows
    center: Float[Tensor, " d"]
    offset: Float[Tensor, "r d"]
    along: Float[Tensor, " r"]
    square: Float[Tensor, " r"]

    def __len__(self) -> int:
        return len(self.rows)

    def newest(self, count: int) -> "CenteredRows":
        """Return the last rows."""
        kept = slice(max(0, len(self) - count), None)
        table = self.rows.take(kept)
        return CenteredRows(
            table, self.center, self.offset[kept], self.along[kept], self.square[kept]
        )


def centered(rows: SlopeRows, center: Float[Tensor, " d"]) -> CenteredRows:
    """Return the rows as seen from the center."""
    offset = rows.midpoint - center
    along, square = _row_sums(rows.direction, offset), _row_sums(offset, offset)
    return CenteredRows(rows, center, offset, along, square)


def _row_sums(a: Float[Tensor, "r d"], b: Float[Tensor, "r d"]) -> Float[Tensor, " r"]:
    """Return <a_r, b_r> of every row, without a whole table of products."""
    size = max(1, BLOCK // max(1, a.shape[1]))
    pairs = zip(a.split(size), b.split(size), strict=True)
    return torch.cat([(own * other).sum(1) for own, other in pairs])


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a covariance of two tables needs of them; aligned is <u, u'>, across <u, D> <u', D>."""

    aligned: Float[Tensor, "r q"]
    across: Float[Tensor, "r q"]
    squared: Float[Tensor, "r q"]
    trend: Float[Tensor, "r q"]
    overlap: Float[Tensor, "r q"]
    noise: Float[Tensor, "r q"]

    def covariance(
        self, prior: SlopePrior, num_clients: int, *, like: "Covariance | None" = None
    ) -> "Covariance":
        """Return the covariance; what a prior decides as that of `like` did is taken from there."""
        same = _same_stages(prior, like.prior) if like else [False] * 3
        kernel = like.kernel if like and same[0] else self._kernel(prior)
        clients = like.clients if like and same[1] else self._clients(prior.rho, num_clients)
        if like and all(same):
            return replace(like, prior=prior)
        if prior.curvature:
            silent = (prior.curvature**2 * self.trend).add_(kernel).mul_(clients)
        else:
            silent = kernel * clients
        return Covariance(prior, kernel, clients, silent, self.noise)

    def _kernel(self, prior: SlopePrior) -> Float[Tensor, "r q"]:
        """Return K0 without its trend, some rows at a time, for they stay in the cache."""
        origin = first_at_zero(prior.kernel, prior.lengthscale)
        kernel = torch.empty_like(self.squared)
        tables = (self.squared, self.aligned, self.across, kernel)
        for squared, aligned, across, rows in zip(*(t.split(_ROWS) for t in tables), strict=True):
            first, second = derivatives(prior.kernel, squared, prior.lengthscale)
            torch.div(first.mul_(aligned).add_(second.mul_(across), alpha=2), origin, out=rows)
        return kernel

    def _clients(self, rho: float, num_clients: int) -> Float[Tensor, "r q"]:
        """Return B."""
        common = 1 / (1 + rho)
        if num_clients == 1:
            return torch.full_like(self.overlap, common)
        own = rho / (1 + rho) * num_clients / (num_clients - 1)
        return (self.overlap - 1 / num_clients).mul_(own).add_(common)


def _same_stages(a: SlopePrior, b: SlopePrior) -> list[bool]:
    """Return whether two priors agree in the kernel, in the clients, and in the trend."""
    kernels = (a.kernel, a.lengthscale) == (b.kernel, b.lengthscale)
    return [kernels, a.rho == b.rho, a.curvature == b.curvature]


@dataclass(frozen=True, slots=True)
class Covariance:
    """A covariance in the stages in which it was made: K0 without trend, B, B * K0, and noise."""

    prior: SlopePrior
    kernel: Float[Tensor, "r q"]
    clients: Float[Tensor, "r q"]
    silent: Float[Tensor, "r q"]
    noise: Float[Tensor, "r q"]

    def matrix(self) -> Float[Tensor, "r q"]:
        """Return K without the jitter, nobody else's to write into."""
        if not self.prior.noise:
            return self.silent.clone()
        return (self.prior.noise * self.noise).add_(self.silent)


def geometry(a: CenteredRows, b: CenteredRows) -> Geometry:
    """Return the geometry of two tables of rows seen from one center, where the trend is."""
    aligned, cross, left, right = _products(a, b)
    overlap = _overlap(a.rows.owners, b.rows.owners).to(a.rows.slope)
    noise = _shared_ends(a.rows, b.rows).to(overlap).mul_(overlap)
    return Geometry(
        aligned=aligned,
        across=left.mul_(right),
        squared=distances_of_products(cross, a.square, b.square),
        trend=torch.outer(a.along, b.along),
        overlap=overlap,
        noise=noise.div_(torch.outer(a.rows.length, b.rows.length)),
    )


def _products(a: CenteredRows, b: CenteredRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return <u, u'>, <m~, m~'>, <u, D> and <u', D>, each [r, q]."""
    u, m = a.rows.direction, a.offset
    if a is b:
        left = (u @ m.T).neg_().add_(a.along.unsqueeze(1))
        return u @ u.T, m @ m.T, left, left.T.neg()
    others = torch.cat([b.rows.direction, b.offset]).T
    aligned, left = (u @ others).tensor_split(2, dim=1)
    right, cross = (m @ others).tensor_split(2, dim=1)
    return aligned, cross, a.along.unsqueeze(1) - left, right - b.along


def _shared_ends(a: SlopeRows, b: SlopeRows) -> Int[Tensor, "r q"]:
    """Return P, how many end points two rows share, with sign."""
    shared = _equal(a.start, b.start) + _equal(a.end, b.end)
    return shared.sub_(_equal(a.start, b.end)).sub_(_equal(a.end, b.start))


def _equal(a: Int[Tensor, " r"], b: Int[Tensor, " q"]) -> Int[Tensor, "r q"]:
    return (a.unsqueeze(1) == b).view(torch.int8)


def _overlap(a: Int[Tensor, "r o"], b: Int[Tensor, "q p"]) -> Float[Tensor, "r q"]:
    """Return <w, w'> of the owners' equal weights; most rows have the owners of the row before."""
    clients = 1 + max(int(ids.max()) if ids.numel() else 0 for ids in (a, b))
    left, left_run = _runs(a)
    right, right_run = (left, left_run) if a is b else _runs(b)
    if len(left) * len(right) * clients > BLOCK:
        product = _sparse(left.cpu(), clients) @ _sparse(right.cpu(), clients).T
        products = torch.from_numpy(product.toarray()).to(a.device)
    else:  # summed in the order in which sparse matrices are, at a tenth of their cost
        products = (_shares(left, clients).unsqueeze(1) * _shares(right, clients)).cumsum(2)[
            ..., -1
        ]
    return products.index_select(1, right_run).index_select(0, left_run)


def _runs(owners: Int[Tensor, "r o"]) -> tuple[Int[Tensor, "k o"], Int[Tensor, " r"]]:
    """Return the owners of every run of rows that have the same, and each row's run."""
    new = torch.ones(len(owners), dtype=torch.bool, device=owners.device)
    new[1:] = (owners[1:] != owners[:-1]).any(1)
    return owners[new], new.cumsum(0) - 1


def _shares(runs: Int[Tensor, "k o"], clients: int) -> Float[Tensor, "k n"]:
    """Return the weights over clients 0 to n - 1."""
    told = runs >= 0
    share = 1.0 / told.sum(1, keepdim=True).clamp(min=1).double()
    weights = share.new_zeros(len(runs), clients + 1)
    weights.scatter_(1, torch.where(told, runs, clients), share.expand(runs.shape))
    return weights[:, :clients]


def _sparse(runs: Int[Tensor, "k o"], clients: int) -> Any:
    """Return the same as a sparse matrix of scipy, which is imported for many clients only."""
    from scipy import sparse

    told = runs >= 0
    count = told.sum(1)
    share = (1.0 / count.clamp(min=1).double()).repeat_interleave(count)
    ends = torch.nn.functional.pad(count.cumsum(0), (1, 0))
    return sparse.csr_array(  # type: ignore[no-untyped-call]
        (share.numpy(), runs[told].numpy(), ends.numpy()), shape=(len(runs), clients)
    )
