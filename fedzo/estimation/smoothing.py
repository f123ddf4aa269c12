"""Randomized smoothing: what a classifier answers under noise, and how far that is certain.

    g(x) = argmax_c P[ f(x + N(0, sigma^2 I)) = c ]
    certified: g is constant within the l2 radius  sigma Phi^-1(p)  for a lower bound p > 1/2 of the
    probability of the answer, at confidence 1 - alpha

Cohen, Rosenfeld & Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019,
CERTIFY: `guess` noisy copies choose the class, `count` others bound its probability by
Clopper-Pearson. Shapes: image [c, h, w]. Cost: guess + count classifications an image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import betaincinv, ndtri
from torch import Tensor

from fedzo.config import check_types, require

Classify = Callable[[Float[Tensor, "b c h w"]], Int[Tensor, " b"]]
ABSTAINED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """Noise and sample sizes; alpha is the chance that a certificate is wrong, an image."""

    sigma: float = 0.25
    guess: int = 100
    count: int = 1000
    alpha: float = 0.001
    batch: int = 1000

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.sigma < math.inf, "sigma", self.sigma, "positive and finite")
        require(0 < self.alpha < 1, "alpha", self.alpha, "between 0 and 1")
        for name in ("guess", "count", "batch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")

    @property
    def largest_radius(self) -> float:
        """Return the radius that is certified when all copies agree."""
        return self.sigma * float(ndtri(self.alpha ** (1 / self.count)))


@dataclass(frozen=True, slots=True)
class Certificate:
    """The smoothed answer, ABSTAINED if it is not certain, and its l2 radius."""

    label: int
    radius: float


def certify(
    classify: Classify,
    image: Float[Tensor, "c h w"],
    smoothing: Smoothing,
    *,
    generator: np.random.Generator,
) -> Certificate:
    """Return the smoothed classifier's answer to an image and within which radius it holds."""
    guesses = noisy_votes(classify, image, smoothing, smoothing.guess, generator=generator)
    label = int(guesses.argmax())
    votes = noisy_votes(classify, image, smoothing, smoothing.count, generator=generator)
    hits = int(votes[label]) if label < len(votes) else 0
    low = _lower_bound(hits, smoothing) if hits else 0.0
    if low <= 0.5:
        return Certificate(ABSTAINED, 0.0)
    return Certificate(label, smoothing.sigma * float(ndtri(low)))


def _lower_bound(hits: int, smoothing: Smoothing) -> float:
    """Return the Clopper-Pearson bound of a probability from below."""
    low: float = betaincinv(hits, smoothing.count - hits + 1, smoothing.alpha)
    return float(low)


def noisy_votes(
    classify: Classify,
    image: Float[Tensor, "c h w"],
    smoothing: Smoothing,
    count: int,
    *,
    generator: np.random.Generator,
) -> Int[Tensor, " k"]:
    """Return how often each class is the answer to `count` noisy copies of an image."""
    labels = []
    for first in range(0, count, smoothing.batch):
        size = (min(smoothing.batch, count - first), *image.shape)
        noise = torch.from_numpy(generator.standard_normal(size, dtype=np.float32))
        labels.append(classify(image + smoothing.sigma * noise))
    return torch.bincount(torch.cat(labels))


def certified_accuracy(
    certificates: list[Certificate], labels: Int[Tensor, " n"], radius: float
) -> float:
    """Return the share of images answered right, and certain to be, within a radius."""
    pairs = zip(certificates, labels.tolist(), strict=True)
    certain = [c.label == label and c.radius >= radius for c, label in pairs]
    return float(np.mean(certain))
