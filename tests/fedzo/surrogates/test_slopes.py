"""Slope rows and the covariance between them, each factor re-derived: kernel, clients, noise."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.randomness import stream
from fedzo.surrogates import slope_geometry
from fedzo.surrogates.kernels import KERNELS, KernelName
from fedzo.surrogates.slope_geometry import Geometry, centered, geometry
from fedzo.surrogates.slopes import (
    SlopePrior,
    SlopeRows,
    join_rows,
    no_rows,
    rows_between,
)

D, N, LENGTH = 3, 5, 1.4
CENTER = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
OWNERS = [[0, 1, 2, 3, 4], [0], [3], [0, 1], [1, 3, 4], [0], [4, 2, 3, 1, 0]]
RHOS = st.floats(0, 30)


def normals(*shape: int, key: str, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(stream(seed, key).standard_normal(shape))


def table(count: int, key: str, owners: list[list[int]] | None = None) -> SlopeRows:
    """Return random rows with no point in common."""
    owners = owners or [[0]] * count
    width = max(map(len, owners))
    ids = torch.arange(count) + (0 if key == "a" else 1000)
    return rows_between(
        normals(count, D, key=f"{key} start"),
        normals(count, D, key=f"{key} end"),
        normals(count, key=f"{key} change"),
        owners=torch.tensor([o + [-1] * (width - len(o)) for o in owners]),
        start=2 * ids,
        end=2 * ids + 1,
    )


def between(a: SlopeRows, b: SlopeRows) -> Geometry:
    left = centered(a, CENTER)
    return geometry(left, left if a is b else centered(b, CENTER))


def of_function(kernel: KernelName, curvature: float, x: torch.Tensor, y: torch.Tensor):  # type: ignore[no-untyped-def]
    """Return cov(F(x), F(y)) with the unit of a slope, trend c/2 |x - center|^2 included."""
    t = (x - y).square().sum() / LENGTH**2
    if kernel == "squared_exponential":
        value, unit = torch.exp(-t / 2), 1 / LENGTH**2
    elif kernel == "matern52":
        s = (5 * t).sqrt()
        value, unit = (1 + s + 5 * t / 3) * torch.exp(-s), 5 / 3 / LENGTH**2
    else:
        value, unit = 1 / (1 + t / 2), 1 / LENGTH**2
    trends = [curvature / 2 * (z - CENTER).square().sum() for z in (x, y)]
    return value / unit + trends[0] * trends[1]


@pytest.mark.parametrize("curvature", [0.0, 0.7])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_covariance_of_slopes_is_autograd_of_the_kernel(
    kernel: KernelName, curvature: float
) -> None:
    a, b = table(4, "a"), table(6, "b")
    prior = SlopePrior(kernel=kernel, lengthscale=LENGTH, curvature=curvature)
    ours = between(a, b).covariance(prior, 1).matrix()
    for r in range(4):
        for q in range(6):
            x, y = (p.midpoint[i].clone().requires_grad_() for p, i in ((a, r), (b, q)))
            value = of_function(kernel, curvature, x, y)
            [by_x] = torch.autograd.grad(value, x, create_graph=True)
            [by_both] = torch.autograd.grad(by_x @ a.direction[r], y)
            assert float(ours[r, q]) == pytest.approx(float(by_both @ b.direction[q]), rel=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
@given(length=st.floats(0.1, 10))
def test_a_slope_has_unit_prior_variance_at_any_lengthscale(
    kernel: KernelName, length: float
) -> None:
    rows = table(5, "a", [[0]] * 5)
    prior = SlopePrior(kernel=kernel, lengthscale=length, rho=2.0)
    diagonal = between(rows, rows).covariance(prior, N).matrix().diagonal()
    assert torch.allclose(diagonal, torch.ones(5, dtype=torch.float64), rtol=1e-9)


def clients_of_one_place(rho: float) -> torch.Tensor:
    """Return the covariance of rows that differ in nothing but their owners."""
    rows = table(len(OWNERS), "a", OWNERS)
    same = rows_between(
        torch.zeros(len(OWNERS), D, dtype=torch.float64),
        torch.ones(len(OWNERS), D, dtype=torch.float64),
        rows.slope,
        owners=rows.owners,
        start=rows.start,
        end=rows.end,
    )
    prior = SlopePrior(kernel="matern52", lengthscale=LENGTH, rho=rho)
    return between(same, same).covariance(prior, N).matrix()


@given(rho=RHOS)
def test_clients_deviate_from_the_mean_with_sum_zero(rho: float) -> None:
    """f_i = F + h_i, h = g - mean g of independent g; the variance of f_i is the unit."""
    center = torch.eye(N, dtype=torch.float64) - 1 / N
    deviation = center @ center.T
    functions = 1 + rho * deviation / deviation[0, 0]
    means = torch.zeros(len(OWNERS), N, dtype=torch.float64)
    for row, owners in enumerate(OWNERS):
        for owner in owners:
            means[row, owner] = 1 / len(owners)
    expected = means @ (functions / functions[0, 0]) @ means.T
    assert torch.allclose(clients_of_one_place(rho), expected, rtol=1e-9, atol=1e-12)


def test_few_and_many_clients_overlap_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, others = table(len(OWNERS), "a", OWNERS), table(3, "b", [[2], [2], [1, 3]])
    pairs = [(rows, rows), (rows, others), (others, rows)]
    dense = [between(*pair).overlap for pair in pairs]
    assert dense[0][3, 4] == pytest.approx(1 / 2 * 1 / 3)
    monkeypatch.setattr(slope_geometry, "BLOCK", 0)
    assert all(torch.equal(a, between(*b).overlap) for a, b in zip(dense, pairs, strict=True))


@given(rho=RHOS)
def test_rows_of_all_clients_do_not_see_their_differences(rho: float) -> None:
    everyone = [0, len(OWNERS) - 1]
    shared = clients_of_one_place(rho)[everyone]
    assert torch.allclose(shared, torch.full_like(shared, 1 / (1 + rho)), rtol=1e-9)


@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(lambda p: p[0] != p[1]),
        min_size=2,
        max_size=7,
    ),
    noise=st.floats(1e-3, 10),
)
def test_rows_with_a_point_in_common_share_its_noise(
    pairs: list[tuple[int, int]], noise: float
) -> None:
    """Noise e[p, i] is independent for each point and client; a row averages e[end] - e[start]."""
    places, owners = 2 * normals(5, D, key="places"), table(7, "a", OWNERS).owners[: len(pairs)]
    start, end = torch.tensor(pairs).T
    rows = rows_between(
        places[start], places[end], torch.ones(len(pairs)).double(),
        owners=owners, start=start, end=end,
    )  # fmt: skip
    of_errors = torch.zeros(len(pairs), 5, N, dtype=torch.float64)
    for row, (a, b) in enumerate(pairs):
        share = 1 / len(OWNERS[row]) / math.dist(places[a].tolist(), places[b].tolist())
        for owner in OWNERS[row]:
            of_errors[row, b, owner] += share
            of_errors[row, a, owner] -= share
    expected = noise * torch.einsum("rpi,qpi->rq", of_errors, of_errors)
    silent = SlopePrior(kernel="matern52", lengthscale=LENGTH, rho=1.5)
    noisy = SlopePrior(kernel="matern52", lengthscale=LENGTH, rho=1.5, noise=noise)
    shape = between(rows, rows)
    added = shape.covariance(noisy, N).matrix() - shape.covariance(silent, N).matrix()
    assert torch.allclose(added, expected, rtol=1e-7, atol=1e-12)


@given(size=st.floats(1e-3, 1e3))
def test_the_slope_of_a_quadratic_is_its_derivative_at_the_midpoint(size: float) -> None:
    hessian = torch.tensor([[2.0, 0.3, 0], [0.3, 1, -0.5], [0, -0.5, 4]], dtype=torch.float64)
    a = normals(6, D, key="a")
    b = a + size * normals(6, D, key="b")
    change = ((b @ hessian) * b).sum(1) / 2 - ((a @ hessian) * a).sum(1) / 2
    ids = torch.arange(6)
    rows = rows_between(a, b, change, owners=ids.unsqueeze(1), start=ids, end=ids + 6)
    assert torch.allclose(rows.direction.norm(dim=1), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(rows.length, (b - a).norm(dim=1))
    derivative = ((rows.midpoint @ hessian) * rows.direction).sum(1)
    assert torch.allclose(rows.slope, derivative, rtol=1e-8, atol=1e-8)


def test_points_that_coincide_give_no_row() -> None:
    a, ids = normals(3, D, key="a"), torch.arange(3)
    b = a + torch.tensor([[1.0], [0.0], [2.0]], dtype=torch.float64)
    owners = torch.tensor([[4], [5], [6]])
    rows = rows_between(a, b, ids.double(), owners=owners, start=ids, end=ids + 3)
    assert len(rows) == 2
    assert rows.owners.tolist() == [[4], [6]]
    assert (rows.start.tolist(), rows.end.tolist()) == ([0, 2], [3, 5])
    assert rows.slope.isfinite().all()


def test_joined_rows_keep_their_owners() -> None:
    one, two = table(2, "a", [[3], [1]]), table(3, "b", [[0, 1], [2, 4], [1, 0]])
    joined = join_rows([no_rows(CENTER), one, two])
    assert joined.owners.tolist() == [[3, -1], [1, -1], [0, 1], [2, 4], [1, 0]]
    assert torch.equal(joined.slope, torch.cat([one.slope, two.slope]))
    prior = SlopePrior(kernel="matern52", lengthscale=LENGTH, rho=2.0, noise=0.1, curvature=0.5)
    whole = between(joined, joined).covariance(prior, N).matrix()
    block = between(one, two).covariance(prior, N).matrix()
    assert torch.allclose(whole[:2, 2:], block, rtol=1e-12)
    assert torch.equal(joined.newest(3).midpoint, two.midpoint)
    assert len(joined.newest(99)) == 5
    assert between(no_rows(CENTER), joined).covariance(prior, N).matrix().shape == (0, 5)
