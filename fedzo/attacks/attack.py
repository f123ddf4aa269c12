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
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Attacker, Reply
from fedzo.attacks.attackers.boundary import Boundary
from fedzo.attacks.confirm import Asking, Confirmation
from fedzo.attacks.copies import averaged, blinded, check_victim
from fedzo.attacks.goal import Goal
from fedzo.attacks.resuming import ask_again
from fedzo.attacks.settings import AttackSettings
from fedzo.attacks.subject import Found, Said, Subject, begun
from fedzo.attacks.victims.images import Given, read_images, read_labels
from fedzo.attacks.victims.showing import OnLevels
from fedzo.attacks.victims.victim import Answers, Victim, ask_checked, join_answers
from fedzo.errors import ConfigError

__all__ = ["AttackSettings", "attack", "check_budget", "check_levels"]

_ANOTHER = 1000
"""Answers that are averaged are remembered as of this time and later, confirming ones as before."""
_PATIENCE = 100
"""Requests in a row that cost nothing, refused or asked before, after which an image is left."""


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
    check_budget(len(images), settings)
    check_levels(images, settings)
    check_victim(victim, settings)
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
        begun(number, images[list(group)], [goals[i] for i in group], told, settings, starts)
        for number, group in enumerate(groups)
    ]
    confirmation = confirmation or Confirmation(max(1, settings.confirm))
    victim = OnLevels(victim, settings.levels) if settings.levels else victim
    asking = Asking(
        victim,
        settings.query_budget,
        settings.universal_rate,
        expect=settings.expect,
        blind=settings.blind > 0,
        confidence=settings.confidence,
    )
    active = subjects
    while active:
        asked = [_affordable(subject, settings) for subject in active]
        copies = [
            _ask(victim, active, asked, settings, number) for number in range(settings.expect)
        ]
        active = [
            subject
            for subject, deltas, *told in zip(active, asked, *copies, strict=True)
            if _goes_on(subject, deltas, told, asking, confirmation)
        ]
        if progress:
            progress(len(subjects) - len(active), sum(s.found.queries for s in subjects))
    for subject in subjects:
        confirmation.take_back(subject, asking)
    return [asking.placed(subject, settings) for subject in subjects]


def check_budget(count: int, settings: AttackSettings) -> None:
    """Raise ConfigError for a budget below one proposal for so many images."""
    shown = settings.shown(count)
    each = settings.expect * shown
    if settings.query_budget < each:
        what = "place" if settings.placements else "image"
        many = f"{shown} {what}s" if shown > 1 else f"one {what}"
        raise ConfigError(
            f"query_budget {settings.query_budget} is below one proposal, which takes {each}"
            f" queries: {many}, {settings.expect} answers each; give more"
        )


def check_levels(images: Tensor, settings: AttackSettings) -> None:
    """Raise ConfigError for images whose values are no whole steps where settings want them."""
    steps = images * settings.levels
    if settings.levels and float((steps - steps.round()).abs().max()) > 1e-3:
        raise ConfigError(
            f"levels={settings.levels}, but the images' values are no whole steps of"
            f" 1/{settings.levels}; round the images, or set levels=0"
        )


def _affordable(subject: Subject, settings: AttackSettings) -> Float[Tensor, "q d"]:
    """Return as many of the perturbations asked for as the budget still covers."""
    each = len(subject.images) * settings.expect
    left = (settings.query_budget - subject.found.queries) // each
    deltas = subject.running.asked[:left]
    return subject.region.on_steps(deltas, settings.levels) if settings.levels else deltas


def _ask(
    victim: Victim,
    subjects: Sequence[Subject],
    asked: Sequence[Tensor],
    settings: AttackSettings,
    number: int,
) -> list[Answers]:
    """Ask the victim about all perturbed images, for the `number`-th time; each one's answers."""
    pictures = [
        blinded(subject.under(deltas), settings.blind, generator=subject.noise)
        for subject, deltas in zip(subjects, asked, strict=True)
    ]
    if victim.tells == "order":
        return [ask_checked(victim, part) for part in pictures]
    anew = number > 0 and not settings.blind
    parts = [
        ask_again(victim, part, _ANOTHER + number) if anew else ask_checked(victim, part)
        for part in torch.cat(pictures).split(settings.batch)
    ]
    everything, answers, first = join_answers(parts), [], 0
    for part in pictures:
        answers.append(everything.take(slice(first, first + len(part))))
        first += len(part)
    return answers


def _goes_on(
    subject: Subject,
    deltas: Float[Tensor, "q d"],
    told: Sequence[Answers],
    asking: Asking,
    confirmation: Confirmation,
) -> bool:
    """Take the answers in, as often as they were asked for; return whether the attack goes on."""
    images, tells = len(subject.images), asking.victim.tells
    paid = sum(subject.count(part) for part in told)
    subject.unpaid = 0 if paid else subject.unpaid + 1
    answers = averaged(told)
    reply, reported = subject.reply(answers, tells, asking.rate)
    subject.reached = subject.reached or bool(reported.shares.any())
    if not asking.blind:
        subject.note_approach(deltas, reply.reached)

    def holds(i: int) -> bool:
        said: Answers | None = answers.take(slice(i * images, (i + 1) * images))
        if asking.blind:
            said = asking.plainly(subject, deltas[i], float(reply.losses[i]))
        if said is None or not confirmation.holds(subject, deltas[i], said, asking):
            return False
        if asking.blind:  # what is reported is of the image as it is
            plain, shown = subject.reply(said, tells, asking.rate)
            reply.losses[i], reported.labels[i] = plain.losses[0], shown.labels[0]
            reported.places[i], reported.shares[i] = shown.places[0], shown.shares[0]
        return True

    _keep_best(
        subject,
        deltas,
        reply,
        reported,
        holds,
        ordered=tells == "order",
        confidence=asking.confidence,
    )
    if asking.blind and subject.found.success:
        subject.note_approach(subject.found.delta.unsqueeze(0), torch.ones(1, dtype=torch.bool))
    another = subject.found.queries + images * asking.expect
    over = subject.found.ends(asking.confidence) or another > asking.query_budget
    if not over and subject.unpaid < _PATIENCE:
        subject.running.tell(_filled(reply, len(subject.running.asked)))
        if not subject.running.done:
            return True
    subject.found = replace(subject.found, reason=_reason(subject, answers))
    return False


def _reason(subject: Subject, answers: Answers) -> str:
    """Return why an attack was left, or by labels has found nothing to begin with; "" else."""
    if subject.unpaid >= _PATIENCE and not subject.found.success:
        return (
            f"left after {subject.unpaid} images in a row were refused, or had been asked before"
            f" ({subject.found.queries} queries were answered)"
        )
    by_labels = answers.scores is None or subject.goals[0].loss == "boundary"
    if subject.reached or not by_labels:
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
    reported: Said,
    holds: Callable[[int], bool],
    *,
    ordered: bool,
    confidence: float,
) -> None:
    """Note a success inside the ball that holds, or a better perturbation inside it.

    What does not hold has not reached the goal, and the attacker is told so.
    Places in an order mean nothing beside those of another request: the newest best one is kept.
    """
    if ordered:
        subject.found = replace(subject.found, loss=math.inf)
    for i, delta in enumerate(deltas):
        old, loss = subject.found, float(reply.losses[i])
        first = bool(reply.reached[i]) and not old.success
        better = first or (loss < old.loss and bool(reply.reached[i]) >= old.success)
        if not better or not subject.region.contains(delta):
            continue
        if reply.reached[i] and not holds(i):
            reply.reached[i] = False
            continue
        subject.found = replace(
            subject.found,
            success=bool(reply.reached[i]),
            delta=delta,
            loss=float(reply.losses[i]),
            label=int(reported.labels[i]),
            place=int(reported.places[i]),
            share=float(reported.shares[i]),
        )
        if subject.found.ends(confidence):
            return
