"""Attack many images of one victim at once, counting every query.

All images advance together: what their attackers ask for goes to the victim as one request, so a
victim that answers batches answers them fast. An image leaves as soon as it is answered otherwise
inside the ball, or its budget is spent. Every image has a generator of its own, made from the seed
and its number, so nobody's result depends on who is attacked beside it (but for victims that order
images or look at all of them, such as detectors).

Counting: a query is one image that the victim answered. Images that the victim refused are counted
apart. Of the answers to one request the first success ends the attack, but all of its images have
been asked and are counted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.attacker import Attacker, Reply, Task
from fedzo.attacks.attackers.boundary import Boundary
from fedzo.attacks.budget import begin
from fedzo.attacks.confirm import Asking, Confirmation
from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.goal import Goal, LossName
from fedzo.attacks.names import Norm
from fedzo.attacks.region import region_around
from fedzo.attacks.subject import Found, Subject, nothing_found
from fedzo.attacks.victims.images import Given, read_images, read_labels
from fedzo.attacks.victims.victim import Answers, Victim, ask_checked, join_answers
from fedzo.attacks.victims.wrappers import OnLevels
from fedzo.config import check_types, require
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from fedzo.used_with import UsedWith, one_of, require_used

_PATIENCE = 100
"""Requests in a row that cost nothing, refused or asked before, after which an image is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSettings:
    """What is allowed, and how it is counted.

    norm, radius: see fedzo.attacks.region. loss: of fedzo.attacks.goal; boundary looks at labels
    only, and the attacker is told distances. query_budget: most queries an image. universal: one
    perturbation for all images; a proposal then costs a query an image, and success is the share
    `universal_rate` of them. levels: pixel values are whole steps of 1 / levels, 0 for any value.
    batch: most images in one request. confirm: answers that a success takes, 0 for one, and 9 of a
    victim that is seen to be noisy (fedzo.attacks.confirm).
    """

    norm: Norm = "linf"
    radius: float = 0.1
    query_budget: int = 1000
    seed: int = 0
    loss: LossName = "margin"
    universal: bool = False
    universal_rate: float = 0.5
    levels: int = 0
    coordinates: Coordinates = field(default_factory=Coordinates)
    batch: int = 4096
    confirm: int = 0
    USED_WITH: ClassVar[UsedWith] = {
        "universal_rate": one_of("universal", True),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require_used(self)
        require(self.radius > 0, "radius", self.radius, "positive")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        for name in ("query_budget", "batch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        rate = self.universal_rate
        require(0 < rate <= 1, "universal_rate", rate, "above 0, up to 1")
        require(self.levels >= 0, "levels", self.levels, "0 (any value) or more, such as 255")
        require(self.confirm >= 0, "confirm", self.confirm, "0 (as the victim needs) or more")


def attack(
    victim: Victim,
    images: Given,
    labels: Given,
    attacker: Attacker,
    settings: AttackSettings,
    *,
    targets: Given | None = None,
    starts: Given | None = None,
    confirmation: Confirmation | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Found]:
    """Attack images whose right answers are `labels`; with targets, to be answered as these.

    starts: images that may be answered as the targets, from which attackers by labels begin where
    they find nothing else. confirmation: looks for noise, and says afterwards whether there was
    any; without it, confirm=0 is one answer. `progress` is told after every request how many
    attacks are over and how many were answered. Raises ConfigError for images out of [0, 1] or off
    the levels, for labels or targets that are not as many or negative, and for a budget that no
    proposal fits in.
    """
    images = read_images(images)
    labels = read_labels(labels, len(images))
    check_inputs(images, settings)
    if targets is not None:
        targets = read_labels(targets, len(images), name="targets")
    starts = None if starts is None else read_images(starts, name="starts: ")
    goals = [
        Goal(int(label), None if targets is None else int(targets[i]), settings.loss)
        for i, label in enumerate(labels)
    ]
    told = Boundary(attacker) if settings.loss == "boundary" else attacker
    groups = [range(len(images))] if settings.universal else [[i] for i in range(len(images))]
    subjects = [
        _subject(number, images[list(group)], [goals[i] for i in group], told, settings, starts)
        for number, group in enumerate(groups)
    ]
    confirmation = confirmation or Confirmation(max(1, settings.confirm))
    victim = OnLevels(victim, settings.levels) if settings.levels else victim
    asking = Asking(victim, settings.query_budget, settings.universal_rate)
    active = subjects
    while active:
        asked = [_affordable(subject, settings) for subject in active]
        answers = _ask(victim, active, asked, settings)
        active = [
            subject
            for subject, deltas, answer in zip(active, asked, answers, strict=True)
            if _goes_on(subject, deltas, answer, asking, confirmation)
        ]
        if progress:
            progress(len(subjects) - len(active), sum(s.found.queries for s in subjects))
    for subject in subjects:
        confirmation.take_back(subject, asking)
    return [subject.found for subject in subjects]


def check_inputs(images: Tensor, settings: AttackSettings) -> None:
    """Raise ConfigError for images or a universal budget that no attack fits."""
    if settings.universal and settings.query_budget < len(images):
        raise ConfigError(
            f"query_budget {settings.query_budget} is for {len(images)} images that are attacked"
            " with one perturbation; each proposal takes a query an image, so give more"
        )
    steps = images * settings.levels
    if settings.levels and float((steps - steps.round()).abs().max()) > 1e-3:
        raise ConfigError(
            f"levels={settings.levels}, but the images' values are no whole steps of"
            f" 1/{settings.levels}; round the images, or set levels=0"
        )


def _subject(
    index: int,
    images: Float[Tensor, "k c h w"],
    goals: list[Goal],
    attacker: Attacker,
    settings: AttackSettings,
    starts: Tensor | None,
) -> Subject:
    region = region_around(images, settings.norm, settings.radius)
    budget = settings.query_budget // len(goals)
    task = Task(
        region,
        settings.coordinates,
        budget,
        stream(settings.seed, "attack", "image", index),
        (starts - images).flatten(1) if starts is not None and len(images) == 1 else None,
    )
    found = nothing_found(index, region.dim)
    return Subject(index, images, goals, region, begin(attacker, task), found)


def _affordable(subject: Subject, settings: AttackSettings) -> Float[Tensor, "q d"]:
    """Return as many of the perturbations asked for as the budget still covers."""
    left = (settings.query_budget - subject.found.queries) // len(subject.images)
    deltas = subject.running.asked[:left]
    return subject.region.on_steps(deltas, settings.levels) if settings.levels else deltas


def _ask(
    victim: Victim,
    subjects: Sequence[Subject],
    asked: Sequence[Tensor],
    settings: AttackSettings,
) -> list[Answers]:
    """Ask the victim about all perturbed images; returns the answers of each subject."""
    pictures = [subject.under(deltas) for subject, deltas in zip(subjects, asked, strict=True)]
    if victim.tells == "order":
        return [ask_checked(victim, part) for part in pictures]
    parts = [ask_checked(victim, part) for part in torch.cat(pictures).split(settings.batch)]
    everything, answers, first = join_answers(parts), [], 0
    for part in pictures:
        answers.append(everything.take(slice(first, first + len(part))))
        first += len(part)
    return answers


def _goes_on(
    subject: Subject,
    deltas: Float[Tensor, "q d"],
    answers: Answers,
    asking: Asking,
    confirmation: Confirmation,
) -> bool:
    """Take the answers in; return whether the attack goes on."""
    images, old, tells = len(subject.images), subject.found, asking.victim.tells
    subject.unpaid = 0 if answers.queries else subject.unpaid + 1
    count = old.queries + answers.queries
    refused = len(answers) - int(answers.answered.sum())
    subject.found = replace(old, queries=count, refused=old.refused + refused)
    reply, first_labels = subject.reply(answers, tells, asking.rate)
    subject.note_approach(deltas, reply.reached)

    def holds(i: int) -> bool:
        told = answers.take(slice(i * images, (i + 1) * images))
        return confirmation.holds(subject, deltas[i], told, asking)

    _keep_best(subject, deltas, reply, first_labels, holds, ordered=tells == "order")
    over = subject.found.success or subject.found.queries + images > asking.query_budget
    if not over and subject.unpaid < _PATIENCE:
        subject.running.tell(_filled(reply, len(subject.running.asked)))
        if not subject.running.done:
            return True
    subject.found = replace(subject.found, reason=_reason(subject, answers))
    return False


def _reason(subject: Subject, answers: Answers) -> str:
    """Return why an attack by labels has found nothing to begin with, "" for any other."""
    by_labels = answers.scores is None or subject.goals[0].loss == "boundary"
    if subject.found.approach or not by_labels:
        return ""
    target = subject.goals[0].target
    wanted = "otherwise" if target is None else f"as class {target}"
    return (
        f"no image was answered {wanted}, inside the ball or outside, so there was no boundary to"
        f" walk along ({subject.found.queries} queries)"
    )


def _filled(reply: Reply, count: int) -> Reply:
    """Return a reply to `count` proposals: those that the budget did not cover were refused."""
    missing = count - len(reply.losses)
    return Reply(
        torch.cat([reply.losses, reply.losses.new_full((missing,), math.nan)]),
        torch.cat([reply.reached, reply.reached.new_zeros(missing)]),
    )


def _keep_best(
    subject: Subject,
    deltas: Float[Tensor, "q d"],
    reply: Reply,
    labels: Int[Tensor, " q"],
    holds: Callable[[int], bool],
    *,
    ordered: bool,
) -> None:
    """Note the first success inside the ball that holds, or a better perturbation inside it.

    What does not hold has not reached the goal, and the attacker is told so.
    Places in an order mean nothing beside those of another request: the newest best one is kept.
    """
    if ordered:
        subject.found = replace(subject.found, loss=math.inf)
    for i, delta in enumerate(deltas):
        better = bool(reply.reached[i]) or float(reply.losses[i]) < subject.found.loss
        if not better or not subject.region.contains(delta):
            continue
        if reply.reached[i] and not holds(i):
            reply.reached[i] = False
            continue
        loss = float(reply.losses[i])
        subject.found = replace(
            subject.found,
            success=bool(reply.reached[i]),
            delta=delta,
            loss=loss,
            label=int(labels[i]),
        )
        if subject.found.success:
            return
