"""A victim smoothed by noise, purified or not, and certified by fedzo.estimation.smoothing."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fedzo.attacks.resuming import at_once, recall, replay
from fedzo.attacks.victims.victim import AnswerKind, Answers, Victim, ask_all
from fedzo.config import require
from fedzo.errors import ObjectiveError
from fedzo.estimation.smoothing import Certificate, Smoothing, certify, noisy_votes
from fedzo.randomness import stream


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

    @property
    def batch(self) -> int | None:
        """One image is a request or more of the victim inside, where that has a limit."""
        return None if at_once(self.victim) is None else 1

    def recall(self, count: int) -> None:
        """Take note of images answered in an earlier run; each was `votes` inside."""
        recall(self.victim, count * self._smoothing.batch)

    def replay(self, images: Float[Tensor, "b c h w"]) -> None:
        """Draw the noise of images answered in an earlier run."""

        def pretended(copies: Float[Tensor, "b c h w"]) -> Int[Tensor, " b"]:
            replay(self.victim, self._shown(copies))
            return torch.zeros(len(copies), dtype=torch.int64)

        votes, generator = self._smoothing.batch, self._generator
        for image in images:
            noisy_votes(pretended, image, self._smoothing, votes, generator=generator)

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
        return ask_all(self.victim, self._shown(images)).labels

    def _shown(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return purified images."""
        with torch.no_grad():
            shown: Tensor = images if self._purifier is None else self._purifier(images)
        return shown


def certify_images(
    victim: SmoothedVictim,
    images: Float[Tensor, "n c h w"],
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
