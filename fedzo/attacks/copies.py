"""Ask a proposal more than once, and not quite as it is: for victims that are random, or watchful.

    told(z) = mean over `expect` answers about clamp(z + blind xi, 0, 1),   xi ~ N(0, I) in each

expect averages the noise of a victim away: expectation over transformations, Athalye, Engstrom,
Ilyas & Kwok, "Synthesizing Robust Adversarial Examples", ICML 2018, where the transformations are
the victim's own. blind hides what is asked for from a detector of near-duplicates, as images under
noise are that far from each other: query blinding, Chen, Carlini & Wagner, "Stateful Detection of
Black-Box Adversarial Attacks", SPAI 2020. What reaches its goal under noise is then asked as it is,
once, and is a success only so. Scores are averaged, of labels the most frequent counts.

Shapes: b images. Cost: `expect` queries an image, and one for every success under noise.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.settings import AttackSettings
from fedzo.attacks.victims.victim import UNKNOWN, Answers, Victim, from_scores, join_answers
from fedzo.errors import ConfigError


def blinded(
    images: Float[Tensor, "b c h w"], blind: float, *, generator: np.random.Generator
) -> Float[Tensor, "b c h w"]:
    """Return images under noise; without any they stay as they are, and nothing is drawn."""
    if not blind:
        return images
    noise = generator.standard_normal(tuple(images.shape), dtype=np.float32)
    return (images + blind * torch.from_numpy(noise).to(images)).clamp(0, 1)


def averaged(told: Sequence[Answers]) -> Answers:
    """Return one answer an image of several; what was refused or not told is left out."""
    if len(told) == 1:
        return told[0]
    answered = torch.stack([part.answered for part in told]).any(dim=0)
    if any(part.scores is None and bool(part.answered.any()) for part in told):
        return Answers(_most_frequent(told), None, answered)
    every = join_answers(list(told)).scores
    assert every is not None
    scores = every.reshape(len(told), len(answered), -1).nanmean(dim=0)
    labels = torch.where(answered, from_scores(scores).labels, UNKNOWN)
    return Answers(labels, scores, answered)


def check_victim(victim: Victim, settings: AttackSettings) -> None:
    """Raise ConfigError for settings that need more than the victim tells."""
    expect, blind, confidence = settings.expect, settings.blind, settings.confidence
    if victim.tells == "order" and (expect > 1 or blind):
        raise ConfigError(
            f"expect={expect} and blind={blind:g} average answers, and this victim tells an order,"
            " which means nothing beside that of another request; leave them out"
        )
    if confidence and (victim.tells in ("labels", "order") or settings.loss == "boundary"):
        raise ConfigError(
            f"confidence={confidence:g} is of scores, and this attack sees none; leave it out"
        )


def _most_frequent(told: Sequence[Answers]) -> Tensor:
    labels = torch.stack([part.labels for part in told])
    known = labels.clamp(min=0)
    counts = torch.zeros(labels.shape[1], int(known.max()) + 1)
    counts.scatter_add_(1, known.T, (labels >= 0).T.float())
    return torch.where(counts.sum(dim=1) > 0, counts.argmax(dim=1), UNKNOWN)
