"""A victim that looks for near-duplicates."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedzo.attacks.victims.detector import DuplicateDetector, sketches
from fedzo.attacks.victims.victim import CallableVictim
from fedzo.attacks.victims.wrappers import Meter
from fedzo.randomness import stream


def constant() -> CallableVictim:
    def scores(images: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.tile([1.0, 0.0], (len(images), 1))

    return CallableVictim(scores)


def drawn(count: int, key: str, side: int = 4) -> torch.Tensor:
    return torch.from_numpy(stream(0, key).random((count, 3, side, side), dtype=np.float32))


def test_it_refuses_what_is_near_to_enough_others() -> None:
    image = torch.full((1, 1, 4, 4), 0.5)
    images = torch.cat([image + 0.01 * i for i in range(5)])
    meter = Meter(DuplicateDetector(constant(), distance=0.05, neighbors=2))
    assert meter.ask(images).answered.tolist() == [True, True, False, False, False]
    assert meter.ask(image + 0.4).answered.tolist() == [True]
    assert (meter.queries, meter.refused) == (3, 3)


@pytest.mark.parametrize("side", [4, 64])
def test_it_finds_exact_copies_among_many(side: int) -> None:
    images = drawn(60, "images", side)
    victim = DuplicateDetector(constant(), distance=1e-4, neighbors=1)
    assert bool(victim.ask(images).answered.all())
    assert not bool(victim.ask(images).answered.any())


def test_it_forgets_the_oldest_when_there_are_too_many() -> None:
    images = drawn(60, "images")
    victim = DuplicateDetector(constant(), distance=1e-4, neighbors=1)
    victim._seen.most = 25
    victim.ask(images)
    assert victim.ask(images[-24:]).answered.tolist() == [False] * 24
    assert victim.ask(images[:20]).answered.tolist() == [True] * 20
    assert victim._seen.rows is not None
    assert victim._seen.rows.shape == (25, 48)


def test_sketches_of_large_images_keep_distances() -> None:
    one, other = drawn(50, "one", 64), drawn(50, "other", 64)
    stripes = 0.02 * torch.sign(drawn(50, "stripes", 64)[:, :1, :1] - 0.5).expand_as(one)
    for far in (other, (one + stripes).clamp(0, 1)):
        true = (far - one).square().mean(dim=(1, 2, 3)).sqrt()
        ratios = (sketches(far) - sketches(one)).norm(dim=1) / true
        assert sketches(one).shape == (50, 4096)
        assert float((ratios - 1).abs().max()) < 0.05
        assert float((ratios - 1).abs().mean()) < 0.02
    small = drawn(5, "small")
    assert torch.equal(sketches(small), small.flatten(1) / 48**0.5)
