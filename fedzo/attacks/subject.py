"""One attack under way: its images, what was found, and what its attacker is told."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedzo.attacks.attacker import Reply, Running
from fedzo.attacks.goal import Goal
from fedzo.attacks.region import Region
from fedzo.attacks.victims.victim import UNKNOWN, AnswerKind, Answers


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one image, or of all of them for a universal perturbation.

    delta: the successful perturbation, else the best one inside the ball. queries: images answered;
    refused: images that were not. label: of the perturbed image (of the first, if universal).
    checks: answers that showed whether the victim is noisy, no queries of the attack. reason: why
    the attack could not search, "" where it could. approach: (queries, size) whenever something
    nearer than all before has reached the goal, in the ball or, by labels, outside; one answer is
    enough there, even of a noisy victim.
    """

    index: int
    success: bool
    queries: int
    refused: int
    delta: Float[Tensor, " d"]
    loss: float
    label: int
    checks: int = 0
    reason: str = ""
    approach: tuple[tuple[int, float], ...] = ()

    @property
    def nearest(self) -> float:
        """The size of the smallest perturbation that has reached the goal, infinite if none."""
        return self.approach[-1][1] if self.approach else math.inf

    def ends(self, confidence: float) -> bool:
        """Say whether the attack has what it wants; the loss counts where somebody says how far."""
        return self.success and (not confidence or self.loss <= -confidence)


def nothing_found(index: int, dim: int) -> Found:
    """Return what is known before anything is asked."""
    return Found(index, False, 0, 0, torch.zeros(dim), math.inf, UNKNOWN)


@dataclass(slots=True)
class Subject:
    """One attack under way."""

    index: int
    images: Float[Tensor, "k c h w"]
    goals: list[Goal]
    region: Region
    running: Running
    found: Found
    noise: np.random.Generator
    unpaid: int = 0
    refuted: float = math.inf
    reached: bool = False

    def under(self, deltas: Float[Tensor, "q d"]) -> Float[Tensor, "b c h w"]:
        """Return all images under each perturbation; b = q k."""
        return perturbed(self.images, deltas)

    def count(self, answers: Answers) -> int:
        """Count answers, and what was refused; returns how many are queries."""
        refused = len(answers) - int(answers.answered.sum())
        self.found = replace(
            self.found,
            queries=self.found.queries + answers.queries,
            refused=self.found.refused + refused,
        )
        return answers.queries

    def note_approach(self, deltas: Float[Tensor, "q d"], reached: Bool[Tensor, " q"]) -> None:
        """Note how small a perturbation has now reached the goal."""
        sizes = [self.region.size(delta) for delta in deltas[reached]]
        if sizes and min(sizes) < self.found.nearest:
            step = (self.found.queries, min(sizes))
            self.found = replace(self.found, approach=(*self.found.approach, step))

    def shares(self, answers: Answers) -> Float[Tensor, " q"]:
        """Return the share of the images that reach the goal under each perturbation."""
        reached = [goal.reached(part) for goal, part in self._parts(answers)]
        return torch.stack(reached).double().mean(dim=0)

    def reply(
        self, answers: Answers, tells: AnswerKind, rate: float
    ) -> tuple[Reply, Int[Tensor, " q"]]:
        """Return what the attacker is told, and the first image's labels.

        rate: the share of several images that is a success.
        """
        if len(self.goals) == 1:
            [goal] = self.goals
            return Reply(goal.losses(answers, tells), goal.reached(answers)), answers.labels
        pairs = self._parts(answers)
        losses = torch.stack([goal.losses(part, tells).clamp(min=0) for goal, part in pairs])
        reached = self.shares(answers) >= rate
        return Reply(losses.mean(dim=0), reached), pairs[0][1].labels

    def _parts(self, answers: Answers) -> list[tuple[Goal, Answers]]:
        """Return each image's goal, and its answers."""
        count = len(self.goals)
        return [(goal, answers.take(slice(i, None, count))) for i, goal in enumerate(self.goals)]


def perturbed(
    images: Float[Tensor, "k c h w"], deltas: Float[Tensor, "q d"]
) -> Float[Tensor, "b c h w"]:
    """Return every image under every perturbation, clipped to [0, 1]; b = q k."""
    added = images.unsqueeze(0) + deltas.reshape(-1, 1, *images.shape[1:]).to(images)
    return added.clamp(0, 1).flatten(0, 1)
