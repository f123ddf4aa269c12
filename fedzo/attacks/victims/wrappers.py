"""What stands between an attacker and a model: less is told, or less is answered.

Wrappers are victims around victims, from the inside to the outside:
LabelOnly(RoundedScores(ModuleVictim(net), 2)). Those that count, remember or draw go on where they
were after an interruption (fedzo.attacks.resuming).
"""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.attacks.resuming import Resuming, at_once, recall, replay
from fedzo.attacks.victims.victim import (
    UNKNOWN,
    AnswerKind,
    Answers,
    Victim,
    ask_checked,
    from_scores,
    join_answers,
)
from fedzo.config import require, require_nonnegative
from fedzo.errors import ConfigError


class Around:
    """A victim that tells what the one inside tells."""

    def __init__(self, victim: Victim) -> None:
        self.victim = victim

    @property
    def tells(self) -> AnswerKind:
        return self.victim.tells

    @property
    def batch(self) -> int | None:
        """How many images are asked in one request, if the victim inside has a limit."""
        return at_once(self.victim)

    def recall(self, count: int) -> None:
        recall(self.victim, count)

    def replay(self, images: Float[Tensor, "b c h w"]) -> None:
        replay(self.victim, images)


def remembers(victim: Any) -> bool:
    """Return whether any of the wrappers counts, keeps what it was asked, or draws."""
    while isinstance(victim, Resuming) and hasattr(victim, "victim"):
        kind = type(victim)
        if kind.recall is not Around.recall or kind.replay is not Around.replay:
            return True
        victim = victim.victim
    return False


def anew(victim: Any, shared: dict[int, Any] | None = None) -> Any:
    """Return wrappers as these are now, around the same model, which go ways of their own.

    What cannot be copied, such as a lock or an open connection, is theirs too. shared: what was
    copied already.
    """
    if not (isinstance(victim, Resuming) and hasattr(victim, "victim")):
        return victim
    shared = {} if shared is None else shared
    twin = copy.copy(victim)
    for name, value in vars(victim).items():
        if name == "victim":
            twin.victim = anew(value, shared)
        elif not isinstance(value, nn.Module):
            setattr(twin, name, _copied(value, shared))
    return twin


def _copied(value: Any, shared: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(value, shared)
    except (TypeError, AttributeError):  # as `copy` says of what has no copies
        return value


class InParts(Around):
    """Asks the victim so many images at a time, such as one where a model takes no batches."""

    def __init__(self, victim: Victim, batch: int) -> None:
        super().__init__(victim)
        self._batch = min(batch, at_once(victim) or batch)

    @property
    def batch(self) -> int:
        return self._batch

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        parts = [ask_checked(self.victim, part) for part in images.split(self._batch)]
        return join_answers(parts)


class Meter(Around):
    """Counts the images answered and refused, and the requests; changes nothing."""

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim)
        self.queries = self.refused = self.requests = 0

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        answers = ask_checked(self.victim, images)
        self.queries += answers.queries
        self.refused += len(answers) - int(answers.answered.sum())
        self.requests += 1
        return answers


class LabelOnly(Around):
    """Tells the class alone."""

    @property
    def tells(self) -> AnswerKind:
        return "labels"

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        answers = ask_checked(self.victim, images)
        return replace(answers, scores=None)


class OrderOnly(Around):
    """Tells in which order the images of a request come by the score of each class, no more.

    Nobody who is told no more can say whether an attack has succeeded; `victim`, the one inside,
    can.
    """

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim)
        _needs_scores(victim, "OrderOnly")

    @property
    def tells(self) -> AnswerKind:
        return "order"

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        answers = ask_checked(self.victim, images)
        assert answers.scores is not None
        known = answers.scores.nan_to_num(-torch.inf)
        places = known.argsort(dim=0, descending=True, stable=True).argsort(dim=0)
        nothing = torch.full_like(answers.labels, UNKNOWN)
        return replace(answers, labels=nothing, scores=places.float())


class TopScores(Around):
    """Tells the k highest scores of an image; the others are NaN."""

    def __init__(self, victim: Victim, count: int) -> None:
        super().__init__(victim)
        _needs_scores(victim, "TopScores")
        require(count >= 1, "count", count, "at least 1")
        self._count = count

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        answers = ask_checked(self.victim, images)
        assert answers.scores is not None
        known = answers.scores.nan_to_num(-torch.inf)
        most = known.shape[1] - 1
        hides = self._count <= most or not bool(answers.answered.any())
        require(hides, "top", self._count, f"at most {most}, or nothing is hidden")
        top = known.topk(min(self._count, known.shape[1]), dim=1).indices
        told = torch.full_like(known, torch.nan).scatter(1, top, answers.scores.gather(1, top))
        return replace(answers, scores=told)


class RoundedScores(Around):
    """Tells scores to so many decimals."""

    def __init__(self, victim: Victim, decimals: int) -> None:
        super().__init__(victim)
        _needs_scores(victim, "RoundedScores")
        require_nonnegative("decimals", decimals)
        self._decimals = decimals

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        answers = ask_checked(self.victim, images)
        assert answers.scores is not None
        rounded = answers.scores.round(decimals=self._decimals)
        return replace(answers, scores=rounded)


class NoisyScores(Around):
    """Tells scores with Gaussian noise, and the class that is highest then."""

    def __init__(self, victim: Victim, std: float, *, generator: np.random.Generator) -> None:
        super().__init__(victim)
        _needs_scores(victim, "NoisyScores")
        require_nonnegative("std", std)
        self._std, self._generator, self._replayed = std, generator, 0

    def replay(self, images: Float[Tensor, "b c h w"]) -> None:
        super().replay(images)
        self._replayed += len(images)

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        answers = ask_checked(self.victim, images)
        assert answers.scores is not None
        self._generator.standard_normal((self._replayed, answers.scores.shape[1]))
        self._replayed = 0
        noise = self._generator.standard_normal(tuple(answers.scores.shape))
        noisy = answers.scores + self._std * torch.from_numpy(noise).to(answers.scores)
        labels = torch.where(answers.answered, from_scores(noisy).labels, UNKNOWN)
        return replace(answers, labels=labels, scores=noisy)


class QueryLimit(Around):
    """Answers so many images and refuses all others."""

    def __init__(self, victim: Victim, limit: int) -> None:
        super().__init__(victim)
        require_nonnegative("limit", limit)
        self.remaining = limit

    def recall(self, count: int) -> None:
        super().recall(count)
        self.remaining = max(0, self.remaining - count)

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        served = torch.arange(len(images)) < self.remaining
        answers = ask_some(self.victim, images, served)
        self.remaining -= int(answers.answered.sum())
        return answers


class Latency(Around):
    """Takes its time: `per_request_s` a request and `per_image_s` an image, in seconds."""

    def __init__(
        self,
        victim: Victim,
        per_request_s: float = 0.0,
        per_image_s: float = 0.0,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(victim)
        for name, value in (("per_request_s", per_request_s), ("per_image_s", per_image_s)):
            require_nonnegative(name, value)
        self._per_request, self._per_image, self._sleep = per_request_s, per_image_s, sleep

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        self._sleep(self._per_request + self._per_image * len(images))
        return ask_checked(self.victim, images)


def ask_some(victim: Victim, images: Float[Tensor, "b c h w"], served: Tensor) -> Answers:
    """Ask for the images marked; the others are refused."""
    told = ask_checked(victim, images[served]) if served.any() else None
    return spread_answers(told, served, victim.tells)


def spread_answers(told: Answers | None, served: Tensor, tells: AnswerKind) -> Answers:
    """Put answers to the images marked in their places; the others are refused."""
    count = len(served)
    labels, answered = torch.full((count,), UNKNOWN), torch.zeros(count, dtype=torch.bool)
    if told is None:
        scores = None if tells == "labels" else torch.full((count, 1), torch.nan)
        return Answers(labels, scores, answered)
    labels[served], answered[served] = told.labels, told.answered
    if told.scores is None:
        return Answers(labels, None, answered)
    table = torch.full((count, told.scores.shape[1]), torch.nan).to(told.scores)
    table[served] = told.scores
    return Answers(labels, table, answered)


def _needs_scores(victim: Victim, wrapper: str) -> None:
    if victim.tells not in ("logits", "probabilities"):
        raise ConfigError(f"{wrapper} needs a victim that tells scores, not {victim.tells}")
