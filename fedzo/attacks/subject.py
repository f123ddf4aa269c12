"""One attack under way: its images, what was found, and what its attacker is told."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedzo.attacks.attacker import Attacker, Reply, Running, Task
from fedzo.attacks.budget import begin
from fedzo.attacks.goal import Goal
from fedzo.attacks.placing import Places, drawn_places, region_of
from fedzo.attacks.region import Region, Shape
from fedzo.attacks.settings import AttackSettings
from fedzo.attacks.victims.victim import UNKNOWN, AnswerKind, Answers
from fedzo.randomness import stream


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one image, or of all of them for a universal perturbation.

    delta: the successful perturbation, else the best one inside the ball. queries: images answered;
    refused: images that were not. label: of the perturbed image (of the first, if universal; at
    number `place` of the placements). checks: answers that showed whether the victim is noisy, no
    queries of the attack. reason: why the attack could not search, "" where it could. approach:
    (queries, size) whenever something nearer than all before has reached the goal, in the ball or,
    by labels, outside; one answer is enough there, even of a noisy victim. share: of the images, or
    places, that delta makes reach the goal, as they were answered when it was found. patch: one for
    many places, as a picture [c, s, s]; delta is then at one of them, where it works if anywhere.
    placed: the share of as many other places at which a successful one works; asking there is a
    check.
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
    place: int = 0
    share: float = 0.0
    patch: Float[Tensor, "c s s"] | None = None
    placed: float | None = None

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


@dataclass(frozen=True, slots=True)
class Said:
    """Which of several images is reported of each proposal, and how it was answered.

    shares: of them that have reached the goal.
    """

    labels: Int[Tensor, " q"]
    places: Int[Tensor, " q"]
    shares: Float[Tensor, " q"]


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
    places: Places | None = None
    others: Places | None = None
    unpaid: int = 0
    refuted: float = math.inf
    reached: bool = False

    def under(self, deltas: Float[Tensor, "q d"]) -> Float[Tensor, "b c h w"]:
        """Return all images under each perturbation; b = q k."""
        if self.places is None:
            return perturbed(self.images, deltas)
        return self.places.pasted(self.images, deltas)

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
        """Note how small a perturbation has now reached the goal; patches are all of a size."""
        if self.places is not None:
            return
        sizes = [self.region.size(delta) for delta in deltas[reached]]
        if sizes and min(sizes) < self.found.nearest:
            step = (self.found.queries, min(sizes))
            self.found = replace(self.found, approach=(*self.found.approach, step))

    def shares(self, answers: Answers) -> Float[Tensor, " q"]:
        """Return the share of the images that reach the goal under each perturbation."""
        reached = [goal.reached(part) for goal, part in self._parts(answers)]
        return torch.stack(reached).double().mean(dim=0)

    def reply(self, answers: Answers, tells: AnswerKind, rate: float) -> tuple[Reply, Said]:
        """Return what the attacker is told, and what is reported.

        rate: the share of several images that is a success.
        """
        if len(self.goals) == 1:
            [goal] = self.goals
            told = Reply(goal.losses(answers, tells), goal.reached(answers))
            shares = told.reached.double()
            return told, Said(answers.labels, torch.zeros_like(answers.labels), shares)
        pairs = self._parts(answers)
        losses = torch.stack([goal.losses(part, tells).clamp(min=0) for goal, part in pairs])
        reached = torch.stack([goal.reached(part) for goal, part in pairs])
        labels = torch.stack([part.labels for _, part in pairs])
        works = reached if self.places is not None else torch.zeros_like(reached)
        shown = works.int().argmax(dim=0)
        said = Said(labels.gather(0, shown.unsqueeze(0))[0], shown, reached.double().mean(dim=0))
        whole = losses.mean(dim=0)
        most = losses.isnan().double().mean(dim=0) <= 0.5  # where some of the images were refused
        some = losses.nanmean(dim=0).where(most, torch.nan)
        return Reply(torch.where(whole.isnan(), some, whole), said.shares >= rate), said

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


def begun(
    index: int,
    images: Float[Tensor, "k c h w"],
    goals: list[Goal],
    attacker: Attacker,
    settings: AttackSettings,
    starts: Tensor | None,
) -> Subject:
    """Begin an attack on one image, or on all of a universal one."""
    region, places, others = region_of(images, settings), None, None
    if settings.placements:
        generator = stream(settings.seed, "attack", "places", index)
        places, others = drawn_places(shape_of(images), settings, generator=generator)
        images, goals = images.expand(len(places), -1, -1, -1), goals * len(places)
    budget = settings.query_budget // (len(goals) * settings.expect)
    near = starts if len(images) == 1 and places is None else None
    task = Task(
        region,
        settings.coordinates,
        budget,
        stream(settings.seed, "attack", "image", index),
        None if near is None else (near - images).flatten(1),
    )
    return Subject(
        index,
        images,
        goals,
        region,
        begin(attacker, task),
        nothing_found(index, region.dim),
        noise=stream(settings.seed, "attack", "blind", index),
        places=places,
        others=others,
    )


def shape_of(images: Float[Tensor, "k c h w"]) -> Shape:
    """Return channels, height and width."""
    channels, height, width = images.shape[1:]
    return channels, height, width
