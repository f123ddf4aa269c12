"""Heterogeneity from shared directions: zero, invariance, and what a simulation put in."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.randomness import stream
from fedzo.surrogates.heterogeneity import heterogeneity

N = 12


def normals(*shape: int, key: str, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(stream(seed, key).standard_normal(shape))


def functions(rho: float, m: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return F [m] and h [n, m] along m directions: var F = 1, var h = rho, sum_i h_i = 0."""
    own = normals(N, m, key="own", seed=seed)
    own = own - own.mean(0)
    return normals(m, key="common", seed=seed), (rho / (1 - 1 / N)) ** 0.5 * own


def changes(rho: float, m: int, seed: int = 0) -> torch.Tensor:
    common, own = functions(rho, m, seed)
    return common + own


@given(k=st.integers(2, N), m=st.integers(2, 9), seed=st.integers(0, 1000))
def test_identical_clients_do_not_differ(k: int, m: int, seed: int) -> None:
    same = normals(m, key="common", seed=seed).expand(k, m)
    assert heterogeneity(same, N) == pytest.approx(0, abs=1e-20)
    assert heterogeneity(torch.zeros(k, m, dtype=torch.float64), N) == 0


@pytest.mark.parametrize("k", [N, 6, 3])
@pytest.mark.parametrize("rho", [0.1, 1.0, 3.0])
def test_what_was_put_in_is_found(rho: float, k: int) -> None:
    found = heterogeneity(changes(rho, 4000)[:k], N)
    assert rho / 1.5 < found < 1.5 * rho


@pytest.mark.parametrize("rho", [0.5, 2.0])
def test_a_sample_of_clients_is_right_on_average(rho: float) -> None:
    """The median over samples of 3 clients of 12, against the variances that were drawn."""
    common, own = functions(rho, 3000)
    truth = float(own.square().mean() / common.square().mean())
    picks = [torch.from_numpy(stream(s, "pick").permutation(N)[:3]) for s in range(200)]
    found = torch.tensor([heterogeneity((common + own)[pick], N) for pick in picks])
    assert float(found.median()) == pytest.approx(truth, rel=0.04)
    assert heterogeneity(common + own, N) == pytest.approx(truth, rel=0.04)


def test_two_clients_by_hand() -> None:
    """Changes less their means: (3, -3) and (1, -1); sbar = (2, -2), own = 1 * 2 * 1/2 = 1."""
    data = torch.tensor([[8.0, 2.0], [0.0, -2.0]], dtype=torch.float64)
    assert heterogeneity(data, 2) == pytest.approx(1 / 4)


@given(seed=st.integers(0, 1000), scale=st.floats(1e-6, 1e6), rho=st.floats(0.01, 10))
def test_scale_does_not_matter(seed: int, scale: float, rho: float) -> None:
    data = changes(rho, 6, seed=seed)[:5]
    assert heterogeneity(scale * data, N) == pytest.approx(heterogeneity(data, N), rel=1e-6)


@given(seed=st.integers(0, 1000))
def test_order_and_each_clients_mean_do_not_matter(seed: int) -> None:
    data = changes(0.5, 8, seed=seed)
    expected = heterogeneity(data, N)
    moved = data + 3 * normals(N, 1, key="mean", seed=seed)
    assert heterogeneity(moved, N) == pytest.approx(expected, rel=1e-6)
    shuffled = data[torch.from_numpy(stream(seed, "order").permutation(N))]
    assert heterogeneity(shuffled, N) == pytest.approx(expected, rel=1e-9)


@given(seed=st.integers(0, 1000), k=st.integers(2, N), rho=st.floats(0, 1e6))
def test_the_estimate_is_between_zero_and_ten_thousand(seed: int, k: int, rho: float) -> None:
    assert 0 <= heterogeneity(changes(rho, 3, seed=seed)[:k], N) <= 1e4 * (1 + 1e-9)


def test_clients_that_cancel_have_nothing_in_common() -> None:
    one = normals(1, 6, key="one")
    assert heterogeneity(torch.cat([one, -one]), 2) == pytest.approx(1e4)
