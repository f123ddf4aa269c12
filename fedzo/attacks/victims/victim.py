"""What is attacked: images in, scores or labels or an order out.

A *query* is one image that the victim answered. Images are [b, c, h, w] in [0, 1]; what a victim
tells is one of

    logits, probabilities   scores [b, k] of the k classes
    labels                  the class of the highest score alone
    order                   for every class the places of the images of one request among each
                            other, 0 for the highest score: a judge who compares but does not rate

All answers pass fedzo.attacks.victims.gate, and those of somebody's own Victim `ask_checked`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from fedzo.attacks.victims.gate import check_probabilities, read_labels, read_scores
from fedzo.config import require
from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.modules import examples_at_once

AnswerKind = Literal["logits", "probabilities", "labels", "order"]

UNKNOWN = -1
"""The label of an image whose class was not told."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a victim said of b images.

    labels: UNKNOWN where it is not told. scores: none for a victim of labels, NaN where one is not
    told; places of an order are scores from 0 upwards. answered: False for images that the victim
    refused. paid: what counts as a query; None for all that was answered.
    """

    labels: Int[Tensor, " b"]
    scores: Float[Tensor, "b k"] | None
    answered: Bool[Tensor, " b"]
    paid: Bool[Tensor, " b"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def queries(self) -> int:
        """Return how many of them are queries."""
        return int((self.answered if self.paid is None else self.paid).sum())

    def take(self, rows: slice | Tensor) -> "Answers":
        """Return some of the answers."""
        scores = None if self.scores is None else self.scores[rows]
        paid = None if self.paid is None else self.paid[rows]
        return Answers(self.labels[rows], scores, self.answered[rows], paid)


@runtime_checkable
class Victim(Protocol):
    """A model that answers images."""

    @property
    def tells(self) -> AnswerKind:
        """What answers consist of."""
        ...

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        """Return what the victim says; raises ObjectiveError when it cannot be reached."""
        ...


def ask_all(victim: Victim, images: Float[Tensor, "b c h w"]) -> Answers:
    """Return complete answers; raises ObjectiveError where an image is refused, or a score kept."""
    answers = victim.ask(images)
    kept = answers.scores is not None and bool(answers.scores.isnan().any())
    if kept or not bool(answers.answered.all()):
        raise ObjectiveError("the victim refused an image or kept a score, and all are needed here")
    return answers


def from_scores(scores: Float[Tensor, "b k"]) -> Answers:
    """Return the answers of a victim that tells its scores, NaN for those that it does not."""
    labels = scores.nan_to_num(-torch.inf).argmax(dim=1)
    return Answers(labels, scores, torch.ones(len(scores), dtype=torch.bool))


def from_labels(labels: Int[Tensor, " b"]) -> Answers:
    """Return the answers of a victim that tells labels."""
    return Answers(labels, None, torch.ones(len(labels), dtype=torch.bool))


def join_answers(parts: list[Answers]) -> Answers:
    """Put answers one after the other.

    Where all images of some parts were refused, the scores of these are NaN like their others'.
    Raises ObjectiveError for parts with other numbers of scores.
    """
    widths = [part.scores.shape[1] for part in parts if part.scores is not None]
    scores = None
    if widths:
        blank = torch.full((1, max(widths)), torch.nan)
        scores = torch.cat([_widened(part, blank) for part in parts])
    paid = [part.answered if part.paid is None else part.paid for part in parts]
    return Answers(
        torch.cat([part.labels for part in parts]),
        scores,
        torch.cat([part.answered for part in parts]),
        torch.cat(paid) if any(part.paid is not None for part in parts) else None,
    )


def _widened(part: Answers, blank: Float[Tensor, "1 k"]) -> Float[Tensor, "b k"]:
    width = 0 if part.scores is None else part.scores.shape[1]
    if part.scores is not None and width == blank.shape[1]:
        return part.scores
    if bool(part.answered.any()):
        raise ObjectiveError(f"the victim told {blank.shape[1]} scores, then {width}")
    return blank.expand(len(part), -1)


@dataclass(frozen=True, slots=True)
class ModuleVictim:
    """A torch module that maps images to scores, asked in evaluation mode without gradients.

    Images come in the type and on the device of its parameters; its mode and its buffers are as
    before when it has answered. It is asked about so many at a time as `examples_at_once` says.
    """

    module: nn.Module
    tells: Literal["logits", "probabilities"] = "logits"

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise ConfigError(
                f"module is a {type(self.module).__name__}; give a torch module, or a function to"
                " CallableVictim"
            )
        require(
            self.tells in ("logits", "probabilities"), "tells", self.tells, "logits, probabilities"
        )

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        """Call the module; raises ObjectiveError where it fails or returns anything else."""
        like = next((p for p in self.module.parameters() if p.is_floating_point()), images)
        given = images.detach().to(like.device, like.dtype, copy=True)
        few = examples_at_once(given, len(given))
        with torch.no_grad(), evaluating(self.module):
            if few == len(given):
                return self._ask(given)
            return join_answers([self._ask(part) for part in given.split(few)])

    def _ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        scores = called(self.module, images)
        if not isinstance(scores, Tensor):
            raise ObjectiveError(
                f"the module returned {type(scores).__name__}; it must return scores"
                " [images, classes]"
            )
        return read_answers(scores, len(images), self.tells, partial=False)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode; its mode and its buffers are put back in the end."""
    training = [part for part in module.modules() if getattr(part, "training", False)]
    owned = [(part, list(part.named_buffers(recurse=False))) for part in module.modules()]
    buffers = [(part, name, b, b.clone()) for part, named in owned for name, b in named]
    if training:
        with suppress(NotImplementedError):  # an exported program is in one mode
            module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
        for part, name, buffer, before in buffers:
            buffer.copy_(before)
            setattr(part, name, buffer)


@dataclass(frozen=True, slots=True)
class CallableVictim:
    """Any function of an array of images [b, c, h, w], float32, as a victim.

    It returns scores [b, k], NaN for those that are not told, or labels [b] with `tells="labels"`.
    """

    function: Callable[[NDArray[np.float32]], Any]
    tells: Literal["logits", "probabilities", "labels"] = "logits"

    def __post_init__(self) -> None:
        allowed = ("logits", "probabilities", "labels")
        require(self.tells in allowed, "tells", self.tells, ", ".join(allowed))
        if not callable(self.function):
            raise ConfigError(f"function is a {type(self.function).__name__}, and cannot be called")

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        """Call the function; raises ObjectiveError where it fails or returns anything else."""
        given = images.detach().cpu().numpy().astype(np.float32)
        return read_answers(called(self.function, given), len(images), self.tells)


def called(function: Callable[[Any], Any], given: Any, what: str = "images") -> Any:
    """Return what somebody's code says; whatever it raises becomes an ObjectiveError."""
    try:
        return function(given)
    except (Exception, SystemExit) as error:
        raise ObjectiveError(
            f"the victim failed on {what} of shape {tuple(given.shape)}:"
            f" {type(error).__name__}: {error}"
        ) from error


def read_answers(told: object, count: int, tells: AnswerKind, *, partial: bool = True) -> Answers:
    """Return the answers in an array, a tensor or nested lists.

    Raises ObjectiveError unless these are `count` labels, or rows of as many scores each, of the
    kind that is declared, finite but, if `partial`, for some that are not told: NaN, or None.
    """
    if tells == "labels":
        return from_labels(read_labels(told, count))
    labels, scores = read_scores(told, count, tells, partial=partial)
    return Answers(labels, scores, torch.ones(count, dtype=torch.bool))


def ask_checked(victim: Victim, images: Float[Tensor, "b c h w"]) -> Answers:
    """Ask a victim, whoever wrote it; raises ObjectiveError for answers that are none."""
    answers = victim.ask(images)
    if not isinstance(answers, Answers):
        raise ObjectiveError(
            f"{type(victim).__name__}.ask returned a {type(answers).__name__}, not Answers; use"
            " from_scores or from_labels of fedzo.attacks.victims.victim"
        )
    sizes = {len(answers.labels), len(answers.answered)}
    if answers.scores is not None:
        sizes.add(len(answers.scores))
    if sizes != {len(images)}:
        raise ObjectiveError(f"the victim answered {sorted(sizes)} of {len(images)} images")
    if answers.scores is None:
        if victim.tells != "labels":
            raise ObjectiveError(f"the victim tells {victim.tells}, and told no scores")
        return answers
    known = answers.scores[answers.answered]
    if bool(known.isinf().any()) or not bool(known.isfinite().any(dim=1).all()):
        raise ObjectiveError("the victim answered scores that are not finite")
    if victim.tells == "probabilities" and len(known) and not hasattr(victim, "victim"):
        check_probabilities(known.numpy())  # what stands around another may add noise to them
    return answers
