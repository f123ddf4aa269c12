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
    """Return one answer an image of several; what was refused is left out.

    A score that is not told counts as the lowest that is, as in fedzo.attacks.goal, and then the
    most frequent label is the label.
    """
    if len(told) == 1:
        return told[0]
    answered = torch.stack([part.answered for part in told]).any(dim=0)
    every = join_answers(list(told)).scores
    if every is None:
        return Answers(_most_frequent(told), None, answered)
    lowest = every.nan_to_num(torch.inf).amin(dim=1, keepdim=True)
    known = torch.cat([part.answered for part in told]).unsqueeze(1)
    kept = bool((every.isnan() & known).any())
    every = torch.where(every.isnan() & known, lowest, every)
    scores = every.reshape(len(told), len(answered), -1).nanmean(dim=0)
    labels = _most_frequent(told) if kept else from_scores(scores).labels
    labels = torch.where(answered, labels, UNKNOWN)
    return Answers(labels, scores, answered)


def check_victim(victim: Victim, settings: AttackSettings) -> None:
    """Raise ConfigError for settings that need more than the victim tells."""
    expect, blind, confidence = settings.expect, settings.blind, settings.confidence
    if victim.tells == "order" and (expect > 1 or blind):
        raise ConfigError(
            f"expect={expect} and blind={blind:g} average answers, and this victim tells an order,"
            " which means nothing beside that of another request; leave them out"
        )
    if victim.tells == "order" and settings.placements:
        raise ConfigError(
            f"placements={settings.placements} counts where a patch works, and this victim tells an"
            " order, which does not say so; leave it out"
        )
    if settings.loss == "boundary" and settings.placements:
        raise ConfigError(
            f"placements={settings.placements} has no boundary outside a ball, for a patch may have"
            " any values; leave loss boundary out"
        )
    if confidence and (victim.tells in ("labels", "order") or settings.loss == "boundary"):
        raise ConfigError(
            f"confidence={confidence:g} is of scores, and this attack sees none; leave it out"
        )
    if confidence and (settings.universal or settings.placements):
        many = "universal=True" if settings.universal else f"placements={settings.placements}"
        raise ConfigError(
            f"confidence={confidence:g} is of one image's loss, and {many} has one of many; leave"
            " one of them out"
        )


def _most_frequent(told: Sequence[Answers]) -> Tensor:
    labels = torch.stack([part.labels for part in told])
    known = labels.clamp(min=0)
    counts = torch.zeros(labels.shape[1], int(known.max()) + 1)
    counts.scatter_add_(1, known.T, (labels >= 0).T.float())
    return torch.where(counts.sum(dim=1) > 0, counts.argmax(dim=1), UNKNOWN)
