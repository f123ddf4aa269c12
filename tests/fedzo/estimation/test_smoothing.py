"""Randomized smoothing: certificates against closed forms, and that they hold."""

import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.estimation.smoothing import (
    ABSTAINED,
    Certificate,
    Smoothing,
    certified_accuracy,
    certify,
)
from fedzo.randomness import stream

IMAGE = torch.full((1, 4, 4), 0.5)


class HalfPlane:
    """Class 1 where the first pixel exceeds 0.5 - offset: the exact radius is the offset."""

    def __init__(self, offset: float) -> None:
        self.offset = offset

    def __call__(self, images: Tensor) -> Tensor:
        return (images[:, 0, 0, 0] > 0.5 - self.offset).long()


def test_the_radius_is_cohens_and_stays_below_the_truth() -> None:
    smoothing = Smoothing(sigma=0.5, guess=50, count=4000)
    for seed in range(20):
        found = certify(HalfPlane(0.4), IMAGE, smoothing, generator=stream(seed, "certify"))
        assert found.label == 1
        assert 0.3 < found.radius < 0.4


def test_the_bound_is_clopper_pearsons() -> None:
    smoothing = Smoothing(sigma=0.25, guess=10, count=200, alpha=0.001)
    found = certify(HalfPlane(10.0), IMAGE, smoothing, generator=stream(0, "certify"))
    low = binomtest(200, 200).proportion_ci(confidence_level=0.998, method="exact").low
    assert found.radius == pytest.approx(0.25 * norm.ppf(low), rel=1e-6)
    assert found.radius == pytest.approx(smoothing.largest_radius, rel=1e-6)


def test_it_abstains_on_the_boundary() -> None:
    found = certify(HalfPlane(0.0), IMAGE, Smoothing(count=100), generator=stream(1, "certify"))
    assert found == Certificate(ABSTAINED, 0.0)


def test_certified_accuracy_by_hand() -> None:
    certificates = [Certificate(1, 0.5), Certificate(0, 0.3), Certificate(ABSTAINED, 0.0)]
    labels = torch.tensor([1, 1, 2])
    assert certified_accuracy(certificates, labels, 0.25) == pytest.approx(1 / 3)
    assert certified_accuracy(certificates, labels, 0.6) == 0.0


def test_noise_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"sigma=0 must be positive"):
        Smoothing(sigma=0)
