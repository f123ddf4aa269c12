"""The gradient in cosine waves: the same Gaussian process as in pixels, a row at a time."""

import numpy as np
import pytest
import torch

from fedzo.randomness import stream
from fedzo.surrogates.spatial import SpatialPrior
from fedzo.surrogates.waves import WavePrior, WaveRows

SHAPE = (3, 40, 48)


def test_color_and_adjoint_are_adjoint() -> None:
    prior = WavePrior(SHAPE, 3.0)
    draw = torch.Generator().manual_seed(0)
    white = torch.randn(prior.dim, generator=draw)
    move = torch.randn(3 * 40 * 48, generator=draw)
    seen = float(prior.color(white) @ move)
    assert seen == pytest.approx(float(white @ prior.adjoint(move)), rel=1e-4)


def test_the_covariance_is_that_of_pixels_inside_the_image() -> None:
    waves, pixels = WavePrior((1, 40, 48), 3.0), SpatialPrior((1, 40, 48), 3.0)
    move = torch.zeros(1, 40, 48)
    move[0, 18:22, 20:25] = 1.0
    flat = move.reshape(-1)
    wanted = pixels.apply(flat.unsqueeze(0))[0]
    got = waves.color(waves.adjoint(flat))
    assert float((got - wanted).abs().max()) < 0.01 * float(wanted.abs().max())


@pytest.mark.parametrize("side", [28, 224])
def test_the_waves_are_as_many_as_the_length_asks_for(side: int) -> None:
    prior = WavePrior((3, side, side), 0.1 * side)
    assert prior.dim == 3 * 13**2


def posterior_mean(rows: torch.Tensor, change: torch.Tensor, noise: float) -> torch.Tensor:
    own = (noise**2 + 1e-6) * rows.square().sum(dim=1)
    gram = rows @ rows.T + torch.diag(own)
    return rows.T @ torch.linalg.solve(gram, change)


@pytest.mark.parametrize(("most", "seen"), [(200, 150), (40, 100)])
def test_rows_one_by_one_give_the_posterior_of_all_that_are_kept(most: int, seen: int) -> None:
    draw = torch.Generator().manual_seed(1)
    table = torch.randn(seen, 30, generator=draw)
    change = torch.randn(seen, generator=draw).double()
    rows = WaveRows(30, most=most, noise=0.5)
    for row, moved in zip(table, change.tolist(), strict=True):
        rows.add(row, moved)
    kept = len(rows)
    assert kept == seen if most > seen else most * 3 // 4 <= kept <= most
    mean = rows.sample(spread=0.0, generator=stream(0, "test"))
    wanted = posterior_mean(table[-kept:].double(), change[-kept:], 0.5)
    torch.testing.assert_close(mean.double(), wanted, atol=1e-4, rtol=1e-3)


def test_samples_spread_as_the_posterior_does() -> None:
    draw = torch.Generator().manual_seed(2)
    table, change = torch.randn(12, 6, generator=draw), torch.randn(12, generator=draw)
    rows = WaveRows(6, most=20, noise=0.7)
    for row, moved in zip(table, change.tolist(), strict=True):
        rows.add(row, moved)
    generator = stream(0, "samples")
    drawn = torch.stack([rows.sample(spread=1.0, generator=generator) for _ in range(4000)])
    exact, told = table.double(), change.double()
    own = (0.7**2 + 1e-6) * exact.square().sum(dim=1)
    inverse = torch.linalg.inv(exact @ exact.T + torch.diag(own))
    scale = float(told @ inverse @ told) / 12
    wanted = scale * (torch.eye(6) - exact.T @ inverse @ exact)
    seen = torch.from_numpy(np.cov(drawn.double().numpy().T))
    assert float((seen - wanted).abs().max()) < 0.1 * float(wanted.diagonal().max())


def test_a_move_of_no_waves_is_no_row() -> None:
    rows = WaveRows(4, most=3, noise=1.0)
    rows.add(torch.zeros(4), 1.0)
    assert len(rows) == 0
