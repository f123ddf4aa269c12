"""The spatial prior against its dense Kronecker covariance, and samples against the dense GP."""

import math

import pytest
import torch

from fedzo.errors import ConfigError
from fedzo.randomness import stream
from fedzo.surrogates.spatial import (
    Changes,
    SpatialPrior,
    add_change,
    no_changes,
    sample_gradient,
    smooth_directions,
    square_prior,
)

SHAPE = (2, 3, 4)
D = math.prod(SHAPE)
PRIORS = [
    SpatialPrior(SHAPE, 1.5),
    SpatialPrior(SHAPE, 0.0, channels=0.0),
    SpatialPrior(SHAPE, 30.0, channels=1.0),
    SpatialPrior((1, 4, 6), 2.5),
]


def dense(prior: SpatialPrior) -> torch.Tensor:
    channels, height, width = prior.shape

    def axis(count: int) -> torch.Tensor:
        if prior.lengthscale == 0:
            return torch.eye(count, dtype=torch.float64)
        place = torch.arange(count, dtype=torch.float64)
        return torch.exp(-((place[:, None] - place) ** 2) / (2 * prior.lengthscale**2))

    across = torch.full((channels, channels), prior.channels, dtype=torch.float64)
    across.fill_diagonal_(1.0)
    return torch.kron(across, torch.kron(axis(height), axis(width)))


def normals(*shape: int, key: str) -> torch.Tensor:
    return torch.from_numpy(stream(0, key).standard_normal(shape))


def table(prior: SpatialPrior, count: int, most: int = 100) -> tuple[Changes, torch.Tensor]:
    """Return rows of some changes, and all moves."""
    moves = normals(count, D, key="moves").float()
    rows = no_changes(D)
    for i, move in enumerate(moves):
        rows = add_change(
            rows, prior, move, float(normals(count, key="y")[i]), noise=0.1 * (i + 1), most=most
        )
    return rows, moves


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_those_of_the_kronecker_covariance(
    prior: SpatialPrior, dtype: torch.dtype
) -> None:
    moves = normals(5, D, key="v").to(dtype)
    product = prior.apply(moves)
    assert product.dtype == dtype
    torch.testing.assert_close(product.double(), moves.double() @ dense(prior), rtol=0, atol=2e-4)


@pytest.mark.parametrize("prior", PRIORS)
def test_samples_have_the_covariance_of_the_prior(prior: SpatialPrior) -> None:
    generator, count = stream(0, "samples"), 1000
    drawn = torch.stack([prior.sample(generator=generator) for _ in range(count)]).double()
    assert drawn.shape == (count, D)
    wanted = dense(prior)
    error = ((1 + wanted**2) / count).sqrt()
    assert bool(((drawn.T @ drawn / count - wanted).abs() < 5 * error + 1e-5).all())
    assert float(drawn.mean(0).abs().max()) < 5 / math.sqrt(count)


@pytest.mark.parametrize("prior", PRIORS[:2])
def test_without_spread_a_sample_is_the_posterior_mean(prior: SpatialPrior) -> None:
    rows, moves = table(prior, 6)
    v, k = moves.double(), dense(prior)
    gram = v @ k @ v.T
    noise = rows.noise.square() * gram.diagonal().mean()
    mean = k @ v.T @ torch.linalg.solve(gram + torch.diag(noise), rows.change)
    for seed in (0, 1):
        found = sample_gradient(rows, prior, spread=0.0, generator=stream(seed, "g"))
        torch.testing.assert_close(found.double(), mean, rtol=1e-4, atol=1e-4)


def test_samples_have_the_mean_and_the_covariance_of_the_posterior() -> None:
    prior, count, spread = PRIORS[0], 1500, 0.7
    rows, moves = table(prior, 6)
    v, k = moves.double(), dense(prior)
    gram = v @ k @ v.T
    full = gram + torch.diag(rows.noise.square() * gram.diagonal().mean())
    solved = torch.linalg.solve(full, rows.change)
    amplitude = float(rows.change @ solved) / len(rows)
    covariance = k - k @ v.T @ torch.linalg.solve(full, v @ k)
    covariance = spread**2 * amplitude * covariance
    generator = stream(0, "posterior")
    drawn = torch.stack(
        [sample_gradient(rows, prior, spread=spread, generator=generator) for _ in range(count)]
    ).double()
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    off = drawn - k @ v.T @ solved
    assert bool((off.mean(0).abs() < 5 * deviation / math.sqrt(count) + 1e-4).all())
    error = ((deviation[:, None] * deviation) ** 2 + covariance**2).div(count).sqrt()
    assert bool(((off.T @ off / count - covariance).abs() < 5 * error + 1e-4).all())


def test_without_rows_a_sample_is_one_of_the_prior() -> None:
    prior = PRIORS[0]
    found = sample_gradient(no_changes(D), prior, spread=0.5, generator=stream(0, "g"))
    assert torch.equal(found, prior.sample(generator=stream(0, "g")))
    rows, _ = table(prior, 3)
    one, same, other = (
        sample_gradient(rows, prior, spread=0.5, generator=stream(seed, "g")) for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("most", [1, 4, 100])
def test_the_table_keeps_the_newest_rows_and_their_gram(prior: SpatialPrior, most: int) -> None:
    rows, moves = table(prior, 7, most)
    kept = moves[-most:].double()
    assert len(rows) == min(most, 7)
    assert torch.equal(rows.moves.double(), kept)
    torch.testing.assert_close(rows.change, normals(7, key="y")[-most:])
    torch.testing.assert_close(
        rows.noise, 0.1 * torch.arange(1, 8, dtype=torch.float64)[-most:], rtol=0, atol=1e-12
    )
    torch.testing.assert_close(rows.smooth.double(), kept @ dense(prior), rtol=0, atol=2e-4)
    gram = kept @ dense(prior) @ kept.T
    torch.testing.assert_close(rows.gram, gram, rtol=1e-4, atol=2e-3)


def test_rows_of_no_move_and_equal_rows_do_no_harm() -> None:
    prior = PRIORS[0]
    rows = no_changes(D)
    move = normals(D, key="move")
    for repeated in (torch.zeros(D), move, move, torch.zeros(D), 1e-4 * move):
        rows = add_change(rows, prior, repeated.float(), 0.5, noise=1e-6, most=10)
    found = sample_gradient(rows, prior, spread=0.5, generator=stream(0, "g"))
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_color_and_adjoint_are_a_root_of_the_covariance(
    prior: SpatialPrior, dtype: torch.dtype
) -> None:
    white, moves = normals(3, 2, D, key="w").to(dtype), normals(3, 2, D, key="v").to(dtype)
    seen = prior.adjoint(moves)
    torch.testing.assert_close((prior.color(white) * moves).sum(-1), (white * seen).sum(-1))
    both = prior.color(seen.flatten(0, 1))
    torch.testing.assert_close(both, prior.apply(moves.flatten(0, 1)), rtol=1e-4, atol=1e-5)
    assert both.dtype == seen.dtype == dtype


def test_only_square_images_of_one_channel_have_a_prior_from_a_number() -> None:
    assert square_prior(36, 1.5) == SpatialPrior((1, 6, 6), 1.5)
    assert square_prior(36, 1.5, image=True) == SpatialPrior((1, 6, 6), 1.5)
    rows = normals(2, 36, key="rows")
    for white in (square_prior(36, 0.0), square_prior(35, 1.5), square_prior(36, 1.5, image=False)):
        assert white.is_white
    assert square_prior(36, 1.5, image=False).color(rows) is rows


@pytest.mark.parametrize("side", [3, 17, 28])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smooth_directions_keep_their_lengths_and_their_bits(side: int, dtype: torch.dtype) -> None:
    """However many are asked for at once, so clients may be spread over processes."""
    rough = normals(4, 5, side * side, key="u").to(dtype)
    smooth = smooth_directions(rough, 1.5)
    torch.testing.assert_close(smooth.norm(dim=-1), rough.norm(dim=-1))
    assert torch.equal(torch.stack([smooth_directions(u, 1.5) for u in rough[1]]), smooth[1])
    image = smooth.reshape(4, 5, side, side)
    beside = (image[..., 1:] * image[..., :-1]).mean() / image.square().mean()
    assert float(beside) > 0.4
    assert smooth_directions(rough, 0.0) is rough


def test_directions_that_are_no_image_cannot_be_smooth() -> None:
    with pytest.raises(ConfigError, match=r"lengthscale=2\.0 must be 0, for x is no square image"):
        smooth_directions(torch.ones(2, 35), 2.0)


def test_white_noise_is_no_matrix_however_long() -> None:
    """A matrix of d x d would be 20 TB here."""
    d = 1_600_001
    rows = torch.ones(2, d)
    for white in (square_prior(d, 0.0), square_prior(d, 1.5)):
        assert white.is_white
        assert all(form(rows) is rows for form in (white.apply, white.color, white.adjoint))
        assert white.sample(generator=stream(0, "white")).shape == (d,)
