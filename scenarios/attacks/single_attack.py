"""Attack one victim on chosen images: what `fedzo attack` and scripts call.

Images that the victim gets wrong anyway are no subject of an attack: images are drawn by seed and
screened, one query each, until enough are answered right. Screening is counted apart; then

    screening_queries + queries = images that the victim has answered (victim_queries)
                                + answers taken from the journal of an interrupted run, or from an
                                  earlier attack of the same call (replayed)

mean_queries counts a failure as the whole budget, median_queries too; both are of attacked images.
The answers that show whether the victim is noisy count as screening; those that confirm a success
(fedzo.attacks.confirm) as the attack's.
An attacker who sees an order alone cannot know that he has succeeded: he spends his whole budget,
and the victim inside is asked once more, not counted, to judge for the report.
"""

import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.attack import attack
from fedzo.attacks.attacker import Attacker
from fedzo.attacks.confirm import Confirmation
from fedzo.attacks.copies import check_victim
from fedzo.attacks.subject import Found
from fedzo.attacks.victims.images import Given, read_images, read_labels
from fedzo.attacks.victims.memory import Remembered
from fedzo.attacks.victims.victim import Victim
from fedzo.attacks.victims.wrappers import Meter, anew, remembers
from fedzo.errors import FedzoWarning
from fedzo.runtime.threads import torch_threads
from scenarios.attacks.attack_result import Report
from scenarios.attacks.attackers import check_coordinates, default_attacker, make_attacker
from scenarios.attacks.plan import Plan
from scenarios.attacks.rehearsal import rehearse
from scenarios.attacks.screening import Screened, screen
from scenarios.victims.order_judge import goals_of, judge_orders

__all__ = ["Plan", "Report", "attack_by_plans", "attack_victim"]

Progress = Callable[[int, int], None]
_STARTS = 10


def attack_victim(
    victim: Victim,
    images: Given,
    labels: Given,
    plan: Plan,
    *,
    journal: Path | str | None = None,
    name: str = "",
    progress: Progress | None = None,
) -> Report:
    """Screen images, attack those that the victim gets right, and report.

    journal: a file in which answers are kept, and from which an interrupted attack goes on; it
    remembers the victim's name.
    It runs on one torch thread, which is faster for small models and on busy machines. Raises
    ConfigError when too few images are answered right.
    """
    [report] = attack_by_plans(
        victim, images, labels, [plan], journal=journal, name=name, progress=progress
    )
    return report


def attack_by_plans(
    victim: Victim,
    images: Given,
    labels: Given,
    plans: Sequence[Plan],
    *,
    journal: Path | str | None = None,
    name: str = "",
    progress: Progress | None = None,
) -> list[Report]:
    """Attack the same images by several plans that differ in attacker and radius.

    The first report has what screening has cost. Each attack goes as it would alone, and what the
    victim was asked in an earlier one is counted but not asked again (replayed). Wrappers that
    count, remember or draw begin anew with each attack, as copies, so those that were given count
    nothing; each attack screens for itself and has a journal of its own beside `journal`.
    """
    images = read_images(images)
    labels = read_labels(labels, len(images))
    reports: list[Report] = []
    file = None if journal is None else Path(journal)
    with torch_threads(1):
        begun = time.perf_counter()
        names = rehearse_plans(victim, images, plans)
        if len(plans) > 1 and remembers(victim):
            for attacker, plan in zip(names, plans, strict=True):
                beyond = _beyond(progress, reports)
                own = None if file is None else journal_of(file, attacker, plan)
                reports += attack_by_plans(
                    anew(victim), images, labels, [plan], journal=own, name=name, progress=beyond
                )
            return reports
        asked = _Asked(victim, file, name)
        screened = screen(asked.victim, images, labels, plans[0])
        for plan in plans:
            report = _attacked(asked, images, labels, plan, screened, _beyond(progress, reports))
            reports.append(
                replace(
                    report,
                    victim_queries=asked.queries - sum(one.victim_queries for one in reports),
                    replayed=asked.replayed - sum(one.replayed for one in reports),
                    seconds=time.perf_counter() - begun - sum(one.seconds for one in reports),
                )
            )
            screened = replace(screened, queries=0)
    return reports


def journal_of(journal: Path, attacker: str, plan: Plan) -> Path:
    """Return the journal of one of several attacks that cannot share one."""
    told = re.sub(r"[^\w.]+", "_", f"{attacker}-{plan.settings.radius!r}")
    return journal.with_stem(f"{journal.stem}-{told}")


def rehearse_plans(
    victim: Victim, images: Float[Tensor, "n c h w"], plans: Sequence[Plan]
) -> list[str]:
    """Return the attackers' names; raises ConfigError for a plan that cannot begin.

    Nothing is asked.
    """
    named = [_attacker(victim, plan, min(images.shape[2:])) for plan in plans]
    for plan, (_, attacker) in zip(plans, named, strict=True):
        check_victim(victim, plan.settings)
        rehearse(attacker, images, plan.num_images, plan.settings)
    return [name for name, _ in named]


class _Asked:
    """A victim whose answers are counted, and remembered unless they are an order."""

    def __init__(self, victim: Victim, journal: Path | None, name: str) -> None:
        self.inside, self._meter = victim, Meter(victim)
        by_order = victim.tells == "order"
        self._memory = None if by_order else Remembered(self._meter, journal, name=name)
        self.victim: Victim = self._memory or self._meter

    @property
    def queries(self) -> int:
        """Return how many images the victim has answered."""
        return self._meter.queries

    @property
    def replayed(self) -> int:
        """Return how many were answered from memory, and counted as if the victim had."""
        return self._memory.replayed if self._memory else 0

    def begin(self) -> None:
        """Begin an attack, which is counted as if there had been no other."""
        if self._memory:
            self._memory.begin()


def _attacked(
    asked: _Asked,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    plan: Plan,
    screened: Screened,
    progress: Progress | None,
) -> Report:
    """Attack the chosen images; what it has cost is left to whoever counts."""
    name, attacker = _attacker(asked.inside, plan, min(images.shape[2:]))
    chosen = screened.chosen
    confirmation = Confirmation(plan.settings.confirm)
    asked.begin()
    found = attack(
        asked.victim,
        images[chosen],
        labels[chosen],
        attacker,
        plan.settings,
        targets=None if plan.target is None else torch.full((len(chosen),), plan.target),
        starts=_starts(images, labels, plan),
        confirmation=confirmation,
        progress=progress,
    )
    if asked.inside.tells == "order":
        goals = goals_of(labels[chosen], plan.target)
        found = judge_orders(
            asked.inside, images[chosen], goals, found, plan.settings, confirmation
        )
    _say_reasons(found, plan)
    return Report(
        plan=plan,
        attacker=name,
        tells=asked.inside.tells,
        images=images[chosen],
        labels=labels[chosen],
        found=found,
        screened=screened,
        confirmation=confirmation,
    )


def _attacker(victim: Victim, plan: Plan, side: int) -> tuple[str, Attacker]:
    """Return the attacker of a plan, and its name; raises ConfigError where it cannot attack."""
    settings = plan.settings
    norm = settings.norm
    if settings.placements:
        norm, side = "linf", min(side, int(settings.radius))
    name = plan.attacker or default_attacker(victim.tells, settings.loss, norm=norm, side=side)
    coordinates = plan.settings.coordinates
    attacker = make_attacker(
        name,
        victim.tells,
        plan.attacker_settings,
        loss=plan.settings.loss,
        coordinates=coordinates.name,
        norm=norm,
    )
    check_coordinates(name, coordinates)
    return name, attacker


def _beyond(progress: Progress | None, reports: Sequence[Report]) -> Progress | None:
    """Return what is told of an attack as what is told of it and those before."""
    if progress is None or not reports:
        return progress
    over = sum(len(one.found) for one in reports)
    queries = sum(found.queries for one in reports for found in one.found)
    return lambda more, spent: progress(over + more, queries + spent)


def _say_reasons(found: Sequence[Found], plan: Plan) -> None:
    """Warn of attacks that never began: their victim is not robust for that."""
    left = [one for one in found if one.reason]
    if left:
        short = left[0].queries > plan.settings.query_budget / 2
        remedy = "raise query_budget" if short else "give images of other classes to start from"
        remedy += "" if plan.target is None else ", or add images of it to the data"
        warnings.warn(
            f"{len(left)} of {len(found)} attacks are no evidence of robustness: {left[0].reason};"
            f" {remedy}",
            FedzoWarning,
            stacklevel=2,
        )


def _starts(
    images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], plan: Plan
) -> Float[Tensor, "s c h w"] | None:
    """Return some images of the target's class, where there are any."""
    if plan.target is None or not bool((labels == plan.target).any()):
        return None
    return images[labels == plan.target][:_STARTS]
