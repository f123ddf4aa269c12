"""The endless sequence of random bases: orthonormal, random access, isotropic."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.estimation.directions import basis_blocks

DIMS = [1, 2, 7, 300]
every_dim = pytest.mark.parametrize("dim", DIMS)


def rows(first: int, count: int, dim: int, seed: int = 0, problem: int = 0) -> torch.Tensor:
    return basis_blocks(torch.tensor([first]), count, dim, seed=seed, problem=problem)[0]


@every_dim
def test_aligned_rows_are_orthonormal(dim: int) -> None:
    for index in (0, 1, 5):
        basis = rows(index * dim, dim, dim)
        assert basis.dtype == torch.float64
        eye = torch.eye(dim, dtype=torch.float64)
        assert torch.allclose(basis @ basis.T, eye, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 7])
@given(
    first=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    count=st.integers(1, 15),
    seed=st.integers(0, 1000),
)
def test_a_block_is_a_slice_of_the_sequence(
    dim: int, first: list[int], count: int, seed: int
) -> None:
    sequence = rows(0, 60, dim, seed)
    blocks = basis_blocks(torch.tensor(first), count, dim, seed=seed)
    assert blocks.shape == (len(first), count, dim)
    for start, block in zip(first, blocks, strict=True):
        assert torch.equal(block, sequence[start : start + count])


def test_a_long_block_crosses_bases_of_a_large_dimension() -> None:
    sequence = rows(0, 620, 300)
    assert torch.equal(rows(290, 20, 300), sequence[290:310])
    assert torch.equal(rows(590, 30, 300), sequence[590:])


@pytest.mark.parametrize("dim", [7, 300])
def test_seed_problem_and_basis_make_the_rows(dim: int) -> None:
    one = rows(0, dim, dim)
    assert torch.equal(one, rows(0, dim, dim))
    for other in (rows(0, dim, dim, seed=1), rows(0, dim, dim, problem=1), rows(dim, dim, dim)):
        assert not torch.allclose(one.abs(), other.abs())
        assert not torch.equal(one.sign(), other.sign())


@pytest.mark.parametrize("dim", [1, 2])
def test_small_dimensions_differ_between_seeds_too(dim: int) -> None:
    many = torch.stack([rows(0, dim, dim, seed=s) for s in range(40)])
    assert len(many.unique(dim=0)) > 1


@pytest.mark.more
@every_dim
@pytest.mark.parametrize("place", [0, -1])
def test_a_row_is_isotropic_over_bases(dim: int, place: int) -> None:
    """E[u u^T] = I / d for a row at a fixed place of its basis, within 5 standard errors."""
    trials = 800
    starts = torch.arange(trials) * dim + place % dim
    u = basis_blocks(starts, 1, dim, seed=3)[:, 0]
    if dim == 300:  # 20 entries a side, not 300: their second moment is a matter of chance alone
        u = u[:, ::15]
    outer = torch.einsum("ti,tj->tij", u, u)
    error = (outer.mean(0) - torch.eye(u.shape[1], dtype=u.dtype) / dim).abs()
    assert (error < 5 * outer.std(0) / trials**0.5 + 1e-12).all()
    assert (u.mean(0).abs() < 5 * u.std(0) / trials**0.5).all()


@pytest.mark.parametrize("dim", [7, 300])
def test_bases_and_problems_are_independent(dim: int) -> None:
    """The inner product of rows of different bases has mean 0 and mean square 1 / d."""
    trials = 800
    starts = torch.arange(trials) * dim
    u = basis_blocks(starts, 1, dim, seed=5)[:, 0]
    other = basis_blocks(starts, 1, dim, seed=5, problem=2)[:, 0]
    for v in (u.roll(1, 0), other):
        inner = (u * v).sum(1)
        square = inner.square()
        assert abs(inner.mean()) < 5 * inner.std() / trials**0.5
        assert abs(square.mean() - 1 / dim) < 5 * square.std() / trials**0.5
