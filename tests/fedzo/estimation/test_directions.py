"""Laws of the samplers, one suite for all kinds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.errors import ConfigError
from fedzo.estimation.directions import (
    DIRECTION_KINDS,
    direction_scale,
    sample_cohort_directions,
    sample_directions,
)
from fedzo.randomness import stream, streams

UNIT_KINDS = ["sphere", "orthogonal", "coordinate"]


@pytest.mark.parametrize("kind", DIRECTION_KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(key=st.integers(0, 10**6), m=st.integers(1, 5), d=st.integers(5, 9))
def test_bits_depend_on_the_key_alone(
    kind: str, dtype: torch.dtype, key: int, m: int, d: int
) -> None:
    alone = sample_directions(kind, m, d, generator=stream(key, "u"), dtype=dtype)
    crowd = [stream(key + 1, "u"), stream(key, "u"), stream(key + 2, "u")]
    among = sample_cohort_directions(kind, m, d, generators=crowd, dtype=dtype)[1]
    assert alone.shape == (m, d)
    assert alone.dtype == dtype
    assert torch.equal(alone, among)


@pytest.mark.parametrize("kind", DIRECTION_KINDS)
def test_other_keys_give_other_directions(kind: str) -> None:
    one, two = (sample_directions(kind, 4, 40, generator=stream(s, "u")) for s in (0, 1))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("kind", UNIT_KINDS)
def test_unit_norm(kind: str) -> None:
    u = sample_directions(kind, 6, 9, generator=stream(0, "u"))
    assert torch.allclose(u.norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_rademacher_are_signs() -> None:
    u = sample_directions("rademacher", 7, 11, generator=stream(0, "u"))
    assert set(u.unique().tolist()) == {-1.0, 1.0}


def test_orthogonal_blocks_are_orthonormal_also_beyond_the_dimension() -> None:
    u = sample_directions("orthogonal", 7, 3, generator=stream(0, "u"))
    for block in u.split(3):
        assert torch.allclose(block @ block.T, torch.eye(len(block), dtype=u.dtype), atol=1e-12)


def test_coordinates_are_distinct_axes() -> None:
    u = sample_directions("coordinate", 5, 5, generator=stream(0, "u"))
    assert torch.equal(u.abs().sum(dim=0), torch.ones(5, dtype=u.dtype))
    assert set(u.unique().tolist()) == {-1.0, 0.0, 1.0}


def test_more_coordinates_than_dimensions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_directions=6 .* dim, which is 5"):
        sample_directions("coordinate", 6, 5, generator=stream(0, "u"))


@pytest.mark.more
@pytest.mark.parametrize("kind", DIRECTION_KINDS)
def test_scaled_second_moment_is_the_identity(kind: str) -> None:
    d, trials = 6, 4000
    u = sample_cohort_directions(kind, 3, d, generators=streams(1, "u", clients=range(trials)))
    outer = direction_scale(kind, d) * torch.einsum("nmi,nmj->nij", u, u) / 3
    error = (outer.mean(0) - torch.eye(d, dtype=u.dtype)).abs()
    assert (error < 5 * outer.std(0) / trials**0.5 + 1e-12).all()


@pytest.mark.more
@pytest.mark.parametrize(
    ("kind", "relative"),
    [
        ("gaussian", lambda d, m: (d + m + 1) / m),
        ("sphere", None),
        ("rademacher", None),
        ("orthogonal", lambda d, m: d / m),
        ("coordinate", lambda d, m: d / m),
    ],
)
def test_second_moment_of_a_linear_gradient(kind: str, relative: object) -> None:
    """E|g|^2 / |a|^2 in closed form, for a linear objective."""
    d, m, trials = 10, 4, 4000
    expected = relative(d, m) if callable(relative) else (d + m - 1) / m
    a = torch.linspace(-1, 2, d, dtype=torch.float64)
    u = sample_cohort_directions(kind, m, d, generators=streams(2, "u", clients=range(trials)))
    g = direction_scale(kind, d) / m * torch.einsum("nm,nmd->nd", u @ a, u)
    ratio = g.square().sum(1) / a.square().sum()
    assert abs(ratio.mean() - expected) < 5 * ratio.std() / trials**0.5 + 1e-9
