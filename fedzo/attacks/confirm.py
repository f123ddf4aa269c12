"""Whether a success holds: a noisy victim errs by itself, and one lucky answer is no success.

Every success is asked again, which is no query of the attack: a victim of scores once, about an
image that differs in the last bit of its pixels (so nobody pays twice for one answer), one of
labels up to five times. While answers agree the victim is exact, and nothing else is asked. Where
they differ it is noisy, and from then on, or from the beginning for a given `confirm`,

    success  =  of `confirm` answers about one perturbation at least m have reached the goal,
                m the least number that fair coins reach once in twenty times (5 of 5, 8 of 9)

counted within the budget, one after the other until that is settled; what had been taken for a
success before noise was seen is asked in the end. Nor is it a success where the image as it was is
answered otherwise as often as not: then the noise does it alone. Of many proposals some pass by
luck, and each image ends at the first that does; so a success is asked as often anew when all is
over, which are checks and no queries, and has to pass again.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.resuming import ask_again
from fedzo.attacks.settings import AttackSettings
from fedzo.attacks.subject import Found, Subject
from fedzo.attacks.victims.victim import Answers, Victim, ask_checked, join_answers
from fedzo.errors import FedzoWarning

NOISY_ANSWERS = 9
"""The answers that a success of a noisy victim takes, unless somebody says how many."""
_LABEL_CHECKS = 5
_CHANCE = 0.05
_ROUNDING, _EPS = 1e-3, 1e-6


def least_hits(answers: int) -> int:
    """Return how many of so many answers must agree; all, where even that may be chance."""
    tail = 0.0
    for hits in range(answers, 0, -1):
        tail += math.comb(answers, hits) * 0.5**answers
        if tail > _CHANCE:
            return min(hits + 1, answers)
    return 1


def agreed(hits: Iterable[bool | None], answers: int) -> bool:
    """Say whether enough of `answers` answers are hits; asks no more than settle it.

    None is a refusal, and ends it well: who says nothing more denies nothing.
    """
    allowed = answers - least_hits(answers)
    for hit in hits:
        if hit is None:
            return True
        allowed -= not hit
        if allowed < 0:
            return False
    return True


def differ(first: Answers, second: Answers) -> bool:
    """Say whether answers to the same images differ by more than rounding."""
    both = first.answered & second.answered
    if first.scores is None or second.scores is None:
        return bool((first.labels != second.labels)[both].any())
    a, b = (one.scores[both].double() for one in (first, second) if one.scores is not None)
    spread = (a.nan_to_num(-math.inf).amax(1) - a.nan_to_num(math.inf).amin(1)).clamp(min=1e-9)
    size = a.abs().nan_to_num(0, 0, 0).amax(1)  # of two classes the spread is 0 where both tie
    allowed = torch.maximum(_ROUNDING * spread, _EPS * size).unsqueeze(1)
    return bool(((a - b).abs().nan_to_num(0) > allowed).any())


@dataclass(frozen=True, slots=True)
class Asking:
    """How a subject is asked: of whom, within which budget; rate: share that is a success.

    expect, blind: how often a proposal is asked, and whether under noise (fedzo.attacks.copies).
    confidence: how far below 0 the loss of a success must be to end the attack.
    """

    victim: Victim
    query_budget: int
    rate: float
    expect: int = 1
    blind: bool = False
    confidence: float = 0.0

    def counted(self, subject: Subject, delta: Float[Tensor, " d"] | None, number: int) -> bool:
        """Ask again, count it, and say whether the goal is reached; not beyond the budget.

        None: about the images as they were.
        """
        return self._reaching(subject, delta, number) is not None

    def plainly(self, subject: Subject, delta: Float[Tensor, " d"], loss: float) -> Answers | None:
        """Ask without noise, count it, and return the answer if the goal is reached.

        loss: under noise. By scores nothing is asked that looks no better than what has failed so.
        """
        if self.victim.tells != "labels" and loss >= subject.refuted:
            return None
        told = self._reaching(subject, delta, 0)
        subject.refuted = subject.refuted if told else loss
        return told

    def _reaching(
        self, subject: Subject, delta: Float[Tensor, " d"] | None, number: int
    ) -> Answers | None:
        if subject.found.queries + len(subject.images) > self.query_budget:
            return None
        shown = subject.images if delta is None else subject.under(delta.unsqueeze(0))
        told = ask_again(self.victim, shown, number)
        subject.count(told)
        return told if float(subject.shares(told)[0]) >= self.rate else None

    def checked(self, subject: Subject, number: int) -> bool | None:
        """Ask again about what was found, as a check: is the goal reached? None if refused."""
        told = ask_again(self.victim, subject.under(subject.found.delta.unsqueeze(0)), number)
        checks = subject.found.checks + told.queries
        subject.found = replace(subject.found, checks=checks)
        if not bool(told.answered.all()):
            return None
        return float(subject.shares(told)[0]) >= self.rate

    def placed(self, subject: Subject, settings: AttackSettings) -> Found:
        """Return what was found; a patch at one of its places, and asked about elsewhere."""
        found, places = subject.found, subject.places
        if places is None:
            return found
        image, change = subject.images[:1], found.delta.unsqueeze(0)
        at = replace(places, corners=places.corners[found.place : found.place + 1])
        moved = (at.pasted(image, change) - image).reshape(-1)
        [patch] = places.contents(change, image.shape[1])
        moved = torch.zeros_like(moved) if found.loss == math.inf else moved  # nothing was found
        found, others = replace(found, delta=moved, patch=patch), subject.others
        if not found.success or others is None or not len(others):
            return found
        shown = others.pasted(image.expand(len(others), -1, -1, -1), change)
        told = join_answers(
            [ask_checked(self.victim, part) for part in shown.split(settings.batch)]
        )
        works = subject.goals[0].reached(told)[told.answered]
        return replace(
            found,
            placed=float(works.double().mean()) if len(works) else None,
            checks=found.checks + told.queries,
            refused=found.refused + len(told) - int(told.answered.sum()),
        )


@dataclass(slots=True)
class Confirmation:
    """How successes of one attack are confirmed.

    answers: that a success takes, 0 for one, and NOISY_ANSWERS where the victim is seen to be
    noisy. noisy: what was seen, None for nothing yet.
    """

    answers: int = 0
    noisy: bool | None = None
    _clean: dict[int, bool] = field(default_factory=dict)

    @property
    def needed(self) -> int:
        """Return how many answers a success takes."""
        return self.answers or (NOISY_ANSWERS if self.noisy else 1)

    def holds(
        self, subject: Subject, delta: Float[Tensor, " d"], told: Answers, ask: Asking
    ) -> bool:
        """Say whether a success, of which the victim `told` so, is one; counts what it asks."""
        if not self.answers and not self.noisy:
            self._probe(subject, delta, told, ask)
        return self.needed == 1 or self._settled(subject, delta, ask)

    def take_back(self, subject: Subject, ask: Asking) -> None:
        """Confirm in the end what was taken for a success before noise was seen."""
        if not subject.found.success or self.needed == 1:
            return
        known = subject.index in self._clean
        settled = known or self._settled(subject, subject.found.delta, ask)
        again = (ask.checked(subject, n) for n in range(self.needed, 2 * self.needed))
        if not (settled and agreed(again, self.needed)):
            subject.found = replace(subject.found, success=False)

    def _settled(self, subject: Subject, delta: Float[Tensor, " d"], ask: Asking) -> bool:
        needed = self.needed
        if subject.index not in self._clean:
            hits = [ask.counted(subject, None, number) for number in range(1, needed + 1)]
            self._clean[subject.index] = 2 * sum(hits) < needed
        return self._clean[subject.index] and agreed(
            (ask.counted(subject, delta, number) for number in range(1, needed)), needed
        )

    def _probe(
        self, subject: Subject, delta: Float[Tensor, " d"], told: Answers, ask: Asking
    ) -> None:
        """Ask the first image of a success again, and note whether the victim is noisy."""
        by_labels = ask.victim.tells == "labels"
        image = subject.under(delta.unsqueeze(0))[:1]
        if not by_labels:
            image = torch.nextafter(image, torch.full_like(image, 0.5))
        for number in range(1, 1 + (_LABEL_CHECKS if by_labels else 1)):
            again = ask_again(ask.victim, image, number)
            checks = subject.found.checks + again.queries
            subject.found = replace(subject.found, checks=checks)
            if not bool(again.answered.all()):
                return
            if differ(told.take(slice(0, 1)), again):
                self.noisy = True
                _tell_noise()
                return
        self.noisy = None if by_labels else False


def _tell_noise() -> None:
    warnings.warn(
        "the victim answers the same image differently each time, so a success is one that"
        f" {least_hits(NOISY_ANSWERS)} of {NOISY_ANSWERS} answers agree on; confirm (--confirm)"
        " sets how many are asked",
        FedzoWarning,
        stacklevel=2,
    )
