"""What an attack wants, as one number a query: below 0 where it has succeeded.

    margin           z_y - max_{c != y} z_c                  untargeted; true class y
                     max_{c != t} z_c - z_t                  targeted; class t
    cross_entropy    log p_y + log 2,  - log p_t - log 2     below 0: p_y below, p_t above one half
    labels           +1 where the attack has not succeeded, -1 where it has; also of loss boundary,
                     whose distances fedzo.attacks.attackers.boundary makes of these
    order            minus the place of y, or the place of t: only good for comparing

z are logits, or log(p + 1e-6) of a victim that tells probabilities: the logarithm gives back the
differences of logits that a softmax hides near certainty. Who tells a positive p below 1e-6 does
not round: then it is log(p) down to the least number of the type.
Scores that are not told (a victim of the top k) are taken as the lowest one that is. Success is
always read off the label, never the loss.
Carlini & Wagner, "Towards Evaluating the Robustness of Neural Networks", S&P 2017, f6 (margin).
Shapes: answers of q images, losses [q]; NaN for images that the victim refused.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fedzo.attacks.victims.victim import AnswerKind, Answers
from fedzo.errors import ConfigError

LossName = Literal["margin", "cross_entropy", "boundary"]
_LEAST = 1e-6
_HUGE = 1e300


def log_probabilities(p: Float[Tensor, "q k"], *, exact: bool = False) -> Float[Tensor, "q k"]:
    """Return log(p + 1e-6), or where p is told exactly log(p); noise below 0 counts as 0."""
    if exact:
        return p.clamp(min=torch.finfo(p.dtype).tiny).log()
    return (p.clamp(min=0) + _LEAST).log()


def told_exactly(scores: Tensor | None) -> bool:
    """Say whether probabilities are told so exactly that 1e-6 would hide differences."""
    return scores is not None and bool(((scores > 0) & (scores < _LEAST)).any())


def margin(
    scores: Float[Tensor, "q k"], label: Tensor | int, *, targeted: bool = False
) -> Float[Tensor, " q"]:
    """Return z_label minus the largest other score, or the opposite for a target."""
    labels = torch.as_tensor(label).expand(len(scores)).unsqueeze(1)
    own = scores.gather(1, labels)
    others = scores.scatter(1, labels, -torch.inf).amax(dim=1, keepdim=True)
    difference = (own - others).squeeze(1)
    return -difference if targeted else difference


@dataclass(frozen=True, slots=True)
class Goal:
    """To have an image of class `label` answered otherwise, or as `target`.

    exact: whether the victim is known to tell probabilities exactly (told_exactly).
    """

    label: int
    target: int | None = None
    loss: LossName = "margin"
    exact: bool = False

    def reached(self, answers: Answers) -> Bool[Tensor, " q"]:
        """Say which answers are a success; a label that is not told is none."""
        labels = answers.labels
        fooled = labels != self.label if self.target is None else labels == self.target
        return fooled & (labels >= 0) & answers.answered

    def losses(self, answers: Answers, tells: AnswerKind) -> Float[Tensor, " q"]:
        """Return the loss of every answer, float64.

        Raises ConfigError for a class that the victim does not have.
        """
        if not answers.answered.any():
            return torch.full((len(answers),), torch.nan, dtype=torch.float64)
        if answers.scores is None or self.loss == "boundary":
            losses = 1.0 - 2.0 * self.reached(answers).double()
        else:
            losses = self._of_scores(answers.scores.double(), tells).clamp(-_HUGE, _HUGE)
        return torch.where(answers.answered, losses, torch.nan)

    def _of_scores(self, scores: Float[Tensor, "q k"], tells: AnswerKind) -> Float[Tensor, " q"]:
        wanted = self.label if self.target is None else self.target
        if wanted >= scores.shape[1]:
            raise ConfigError(
                f"class {wanted} is wanted of a victim that tells {scores.shape[1]} scores; check"
                " the labels, or which data the victim is for"
            )
        if tells == "order":
            return scores[:, wanted] if self.target is not None else -scores[:, wanted]
        if tells == "probabilities":
            scores = log_probabilities(scores, exact=self.exact or told_exactly(scores))
        lowest = scores.nan_to_num(torch.inf).amin(dim=1, keepdim=True)
        scores = torch.where(scores.isnan(), lowest, scores)
        if self.loss == "margin":
            return margin(scores, wanted, targeted=self.target is not None)
        log_p = scores.log_softmax(dim=1)[:, wanted] + math.log(2)
        return log_p if self.target is None else -log_p
