"""Attack one victim on chosen images: what `fedzo attack` and scripts call.

Images that the victim gets wrong anyway are no subject of an attack: images are drawn by seed and
screened, one query each, until enough are answered right. Screening is counted apart; then

    screening_queries + queries = images that the victim has answered (victim_queries)
                                + answers taken from the journal of an interrupted run (replayed)

mean_queries counts a failure as the whole budget, median_queries too; both are of attacked images.
The answers that show whether the victim is noisy count as screening; those that confirm a success
(fedzo.attacks.confirm) as the attack's.
An attacker who sees an order alone cannot know that he has succeeded: he spends his whole budget,
and the victim inside is asked once more, not counted, to judge for the report.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.attack import attack
from fedzo.attacks.confirm import Confirmation
from fedzo.attacks.subject import Found, perturbed
from fedzo.attacks.victims.images import Given, read_images, read_labels
from fedzo.attacks.victims.memory import Remembered
from fedzo.attacks.victims.victim import AnswerKind, Victim
from fedzo.attacks.victims.wrappers import Meter
from fedzo.errors import ConfigError, FedzoWarning
from fedzo.randomness import stream
from fedzo.runtime.threads import torch_threads
from scenarios.attacks.attackers import check_coordinates, default_attacker, make_attacker
from scenarios.attacks.plan import Plan
from scenarios.attacks.rehearsal import rehearse
from scenarios.victims.order_judge import goals_of, judge_orders

__all__ = ["Plan", "Report", "attack_victim"]

_SCREENED_AT_ONCE = 32
_STARTS = 10


@dataclass(frozen=True, slots=True)
class Report:
    """What an attack has given: the images, what was found for each, and what it has cost.

    query_cost: price of a query; cost, in the summary, is that of what the victim has answered now.
    confirmation: whether the victim was noisy, and how many answers a success takes.
    """

    plan: Plan
    attacker: str
    tells: AnswerKind
    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    found: Sequence[Found]
    screening_queries: int
    victim_queries: int
    replayed: int
    seconds: float
    query_cost: float = 0.0
    confirmation: Confirmation = field(default_factory=Confirmation)

    @property
    def success_rate(self) -> float:
        """The share of the attacked images that are answered otherwise."""
        return mean(float(found.success) for found in self.found)

    @property
    def adversarials(self) -> Float[Tensor, "n c h w"]:
        """The attacked images as they were changed; best tries, where `found` says no success."""
        deltas = torch.stack([found.delta for found in self.found])
        if self.plan.settings.universal:
            return perturbed(self.images, deltas)
        pairs = zip(self.images.split(1), deltas.split(1), strict=True)
        return torch.cat([perturbed(*pair) for pair in pairs])

    def __str__(self) -> str:
        told = self.summary()
        return (
            f"{told['attacker']}: {told['success_rate']:.0%} of {told['images']} images within"
            f" {told['norm']} {told['radius']:g}, {told['mean_queries']:.1f} queries on average"
        )

    def summary(self) -> dict[str, Any]:
        """Return what `--json` prints, without the victim's name."""
        settings, budget = self.plan.settings, self.plan.settings.query_budget
        counted = [found.queries if found.success else budget for found in self.found]
        return {
            "attacker": self.attacker,
            "tells": self.tells,
            "norm": settings.norm,
            "radius": settings.radius,
            "query_budget": budget,
            "seed": settings.seed,
            "images": len(self.images),
            "success_rate": self.success_rate,
            "mean_queries": mean(counted),
            "median_queries": median(counted),
            "queries": sum(found.queries for found in self.found),
            "refused": sum(found.refused for found in self.found),
            "screening_queries": self.screening_queries + sum(f.checks for f in self.found),
            "noisy": self.confirmation.noisy,
            "confirm": self.confirmation.needed,
            "victim_queries": self.victim_queries,
            "replayed": self.replayed,
            "cost": self.query_cost * self.victim_queries,
            "wall_s": self.seconds,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the summary and one entry an image."""
        each = [
            {
                "image": found.index,
                "label": int(self.labels[found.index]),
                "answer": found.label,
                "success": found.success,
                "queries": found.queries,
                "refused": found.refused,
                "reason": found.reason,
                "loss": found.loss if found.loss < float("inf") else None,
                "linf": float(found.delta.abs().max()),
                "l2": float(found.delta.norm()),
                "values_changed": int(found.delta.ne(0).sum()),
            }
            for found in self.found
        ]
        return {**self.summary(), "each": each}


def attack_victim(
    victim: Victim,
    images: Given,
    labels: Given,
    plan: Plan,
    *,
    journal: Path | str | None = None,
    name: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Screen images, attack those that the victim gets right, and report.

    journal: a file in which answers are kept, and from which an interrupted attack goes on; it
    remembers the victim's name.
    It runs on one torch thread, which is faster for small models and on busy machines. Raises
    ConfigError when too few images are answered right.
    """
    images = read_images(images)
    labels = read_labels(labels, len(images))
    journal = None if journal is None else Path(journal)
    with torch_threads(1):
        return _attacked(victim, images, labels, plan, journal, name, progress)


def _attacked(
    victim: Victim,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    plan: Plan,
    journal: Path | None,
    name: str,
    progress: Callable[[int, int], None] | None,
) -> Report:
    begun = time.perf_counter()
    loss = plan.settings.loss
    chosen_attacker = plan.attacker or default_attacker(victim.tells, loss)
    attacker = make_attacker(
        chosen_attacker,
        victim.tells,
        plan.attacker_settings,
        loss=loss,
        coordinates=plan.settings.coordinates.name,
    )
    check_coordinates(chosen_attacker, plan.settings.coordinates)
    rehearse(attacker, images, plan.num_images, plan.settings)
    meter = Meter(victim)
    asked: Victim = meter if victim.tells == "order" else Remembered(meter, journal, name=name)
    chosen, screened = _screen(asked, images, labels, plan)
    targets = None
    if plan.target is not None:
        targets = torch.full((len(chosen),), plan.target)
    confirmation = Confirmation(plan.settings.confirm)
    found = attack(
        asked,
        images[chosen],
        labels[chosen],
        attacker,
        plan.settings,
        targets=targets,
        starts=_starts(images, labels, plan),
        confirmation=confirmation,
        progress=progress,
    )
    if victim.tells == "order":
        goals = goals_of(labels[chosen], plan.target)
        found = judge_orders(victim, images[chosen], goals, found, plan.settings, confirmation)
    _say_reasons(found, plan.target)
    return Report(
        plan,
        chosen_attacker,
        victim.tells,
        images[chosen],
        labels[chosen],
        found,
        screened,
        meter.queries,
        asked.replayed if isinstance(asked, Remembered) else 0,
        time.perf_counter() - begun,
        confirmation=confirmation,
    )


def _say_reasons(found: Sequence[Found], target: int | None) -> None:
    """Warn of attacks that never began: their victim is not robust for that."""
    reasons = [one.reason for one in found if one.reason]
    if reasons:
        warnings.warn(
            f"{len(reasons)} of {len(found)} attacks are no evidence of robustness: {reasons[0]};"
            f" raise query_budget{'' if target is None else ', or add images of it to the data'}",
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


def _screen(
    victim: Victim, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], plan: Plan
) -> tuple[Int[Tensor, " k"], int]:
    """Return the first images in random order that are answered right, and what that has cost.

    A victim that tells no labels is not screened: nobody could say which answers are right.
    """
    order = torch.from_numpy(stream(plan.settings.seed, "attack", "order").permutation(len(images)))
    if plan.target is not None:
        order = order[labels[order] != plan.target]
    if victim.tells == "order":
        return order[: plan.num_images], 0
    right: list[int] = []
    queries = first = refused = 0
    most = len(order) if plan.all_right else min(len(order), _most_screened(plan))
    while first < most:
        wanted = min(_SCREENED_AT_ONCE, plan.num_images - len(right))
        part = order[first : min(first + wanted, most)]
        first += len(part)
        answers = victim.ask(images[part])
        queries += answers.queries
        refused += len(answers) - int(answers.answered.sum())
        hits = (answers.labels == labels[part]) & answers.answered
        right += part[hits].tolist()
        if len(right) >= plan.num_images:
            return torch.tensor(right[: plan.num_images]), queries
    if right and plan.all_right:
        return torch.tensor(right), queries
    raise ConfigError(
        f"images={plan.num_images} asks for more than the {len(right)} of {first} that the"
        f" victim answers as labelled{f' (it refused {refused})' if refused else ''}; lower it, or"
        " check that victim and data belong together"
        f"{'' if first == len(order) else f' ({len(order) - first} others were not asked)'}"
    )


def _most_screened(plan: Plan) -> int:
    """Return how many images are screened at most before too few are said to be answered right.

    A victim that is right once in twenty times is as good as none; nor may screening cost much more
    than the attack itself.
    """
    each = 1 if plan.settings.universal else plan.num_images
    worth = min(20 * plan.num_images, plan.settings.query_budget * each)
    return max(_SCREENED_AT_ONCE, 4 * plan.num_images, worth)
