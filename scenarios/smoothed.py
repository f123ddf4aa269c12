"""A victim smoothed by noise, purified or not, and its certificates (fedzo.smoothing)."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fedzo.attacks.victim import AnswerKind, Answers, Victim, ask_all
from fedzo.config import require
from fedzo.errors import ObjectiveError
from fedzo.randomness import stream
from fedzo.smoothing import Certificate, Smoothing, certify, noisy_votes


class SmoothedVictim:
    """A defended victim: the vote of the victim on noisy copies of an image, purified or not.

    It tells the shares of the votes as probabilities. One query of the attacker is `votes` of the
    victim inside.
    """

    tells: AnswerKind = "probabilities"

    def __init__(
        self,
        victim: Victim,
        purifier: nn.Module | None,
        sigma: float,
        *,
        generator: np.random.Generator,
        votes: int = 32,
        num_classes: int = 10,
    ) -> None:
        require(votes >= 1, "votes", votes, "at least 1")
        self.victim, self._classes = victim, num_classes
        self._smoothing = Smoothing(sigma=sigma, batch=votes)
        self._purifier, self._generator = purifier, generator

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        shares = torch.stack([self._shares(image) for image in images])
        answered = torch.ones(len(images), dtype=torch.bool)
        return Answers(shares.argmax(dim=1), shares, answered)

    def _shares(self, image: Float[Tensor, "c h w"]) -> Float[Tensor, " k"]:
        votes = noisy_votes(
            self.classify,
            image,
            self._smoothing,
            self._smoothing.batch,
            generator=self._generator,
        )
        if len(votes) > self._classes:
            raise ObjectiveError(
                f"the victim answered class {len(votes) - 1}; it is smoothed as one of"
                f" {self._classes} classes"
            )
        votes = torch.nn.functional.pad(votes, (0, self._classes - len(votes)))
        return votes.float() / self._smoothing.batch

    def classify(self, images: Float[Tensor, "b c h w"]) -> Int[Tensor, " b"]:
        """Return the victim's answers to purified images."""
        with torch.no_grad():
            shown = images if self._purifier is None else self._purifier(images)
        return ask_all(self.victim, shown).labels


def certify_images(
    victim: SmoothedVictim,
    images: Float[Tensor, "n 1 s s"],
    smoothing: Smoothing,
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Certificate]:
    """Return a certificate for every image."""
    certificates = []
    for i, image in enumerate(images):
        generator = stream(seed, "certify", i)
        certificates.append(certify(victim.classify, image, smoothing, generator=generator))
        if progress:
            progress(i + 1)
    return certificates
