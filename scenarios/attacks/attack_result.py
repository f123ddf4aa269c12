"""What an attack on one victim has given, as numbers and as images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.confirm import Confirmation
from fedzo.attacks.region import on_levels
from fedzo.attacks.subject import Found, perturbed
from fedzo.attacks.victims.victim import UNKNOWN, AnswerKind
from fedzo.records.facts import Fact, ShownByFacts
from scenarios.attacks.plan import Plan
from scenarios.attacks.screening import Screened


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Report(ShownByFacts):
    """What an attack has given: the images, what was found for each, and what it has cost.

    screened: where in the data the images are, and which others the victim gets wrong.
    query_cost: price of a query; cost, in the summary, is that of what the victim has answered now.
    confirmation: whether the victim was noisy, and how many answers a success takes. classes: names
    of the classes; files: of the data, by place; either may be unknown.
    """

    plan: Plan
    attacker: str
    tells: AnswerKind
    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    found: Sequence[Found]
    screened: Screened
    victim_queries: int = 0
    replayed: int = 0
    seconds: float = 0.0
    query_cost: float = 0.0
    confirmation: Confirmation = field(default_factory=Confirmation)
    classes: Sequence[str] = ()
    files: Sequence[str] = ()

    @property
    def screening_queries(self) -> int:
        """What finding images that are answered right has cost."""
        return self.screened.queries

    @property
    def success_rate(self) -> float:
        """The share of the attacks that succeeded: of the images, or of one for all of them."""
        return mean(float(found.success) for found in self.found)

    @property
    def fooled(self) -> float:
        """The share of the attacked images that are answered otherwise."""
        universal = self.plan.settings.universal
        return mean(found.share if universal else float(found.success) for found in self.found)

    @property
    def robust_accuracy(self) -> float:
        """The share of the images asked that are answered right, and still are after the attack.

        A victim that tells an order is not screened: there, the share that the attack has left.
        """
        if self.plan.settings.universal:
            return self.screened.accuracy * (1 - self.fooled)
        return self.screened.accuracy * mean(map(float, self.standing))

    @property
    def standing(self) -> Sequence[bool]:
        """Which images are answered as before; one that has become a third class is not."""
        if self.plan.target is None:
            return [not found.success for found in self.found]
        pairs = zip(self.found, self.labels.tolist(), strict=True)
        return [not found.success and found.label in (label, UNKNOWN) for found, label in pairs]

    @property
    def median_nearest(self) -> float | None:
        """The median size of the smallest perturbations that have reached the goal; None if none.

        Attackers by labels go on from outside the ball: this is how far they have come.
        """
        size = median(found.nearest for found in self.found)
        return size if math.isfinite(size) else None

    @property
    def placed(self) -> float | None:
        """The share of other places at which successful patches work, on average; None if none."""
        shares = [found.placed for found in self.found if found.placed is not None]
        return mean(shares) if shares else None

    @property
    def came_from_outside(self) -> bool:
        """Whether an attack has had successes outside the ball, and come nearer."""
        return any(len(found.approach) > 1 for found in self.found)

    @property
    def adversarials(self) -> Float[Tensor, "n c h w"]:
        """The attacked images as they were changed; best tries, where `found` says no success."""
        deltas = torch.stack([found.delta for found in self.found])
        if self.plan.settings.universal:
            changed = perturbed(self.images, deltas)
        else:
            pairs = zip(self.images.split(1), deltas.split(1), strict=True)
            changed = torch.cat([perturbed(*pair) for pair in pairs])
        levels = self.plan.settings.levels
        return on_levels(changed, levels) if levels else changed

    def said(self, label: int) -> str:
        """Return a class by its name, where that is known, or its number; "-" for none."""
        if label < 0:
            return "-"
        return self.classes[label] if label < len(self.classes) else str(label)

    def __str__(self) -> str:
        told = self.summary()
        return (
            f"{told['attacker']}: {told['fooled']:.0%} of {told['images']} images within"
            f" {told['norm']} {told['radius']:g}, {told['mean_queries']:.1f} queries on average"
        )

    def heading(self) -> str:
        return str(self)

    def facts(self) -> Sequence[Fact]:
        nearest = self.median_nearest
        return [
            ("robust accuracy", f"{self.robust_accuracy:.0%}"),
            ("nearest, median", "none" if nearest is None else f"{nearest:.4g}"),
            ("screening", f"{self.screening_queries:,} queries"),
            ("seconds", f"{self.seconds:.1f}"),
        ]

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
            "target": self.plan.target,
            "images": len(self.images),
            "misclassified": len(self.screened.misclassified),
            "success_rate": self.success_rate,
            "fooled": self.fooled,
            "mean_queries": mean(counted),
            "median_queries": median(counted),
            "median_nearest": self.median_nearest,
            "queries": sum(found.queries for found in self.found),
            "refused": sum(found.refused for found in self.found),
            "screening_queries": self.screening_queries + sum(f.checks for f in self.found),
            "noisy": self.confirmation.noisy,
            "confirm": self.confirmation.needed,
            "expect": settings.expect,
            "blind": settings.blind,
            "confidence": settings.confidence,
            "placements": settings.placements,
            "placed": self.placed,
            "victim_queries": self.victim_queries,
            "replayed": self.replayed,
            "cost": self.query_cost * self.victim_queries,
            "wall_s": self.seconds,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the summary, one entry an image, and one for each that the victim gets wrong."""
        each = [
            {
                "image": found.index,
                "place": int(self.screened.chosen[found.index]),
                "label": int(self.labels[found.index]),
                "answer": found.label,
                **self._names(found),
                "success": found.success,
                "queries": found.queries,
                "refused": found.refused,
                "reason": found.reason,
                "placed": found.placed,
                "nearest": found.nearest if found.approach else None,
                "loss": found.loss if found.loss < float("inf") else None,
                "linf": float(found.delta.abs().max()),
                "l2": float(found.delta.norm()),
                "values_changed": int(found.delta.ne(0).sum()),
            }
            for found in self.found
        ]
        return {**self.summary(), "each": each, "wrong": self._wrong()}

    def _names(self, found: Found) -> dict[str, str]:
        """Return what the data call an image and its classes, as far as they do."""
        place, label = int(self.screened.chosen[found.index]), int(self.labels[found.index])
        told = {"file": self.files[place]} if self.files else {}
        if self.classes:
            told |= {"label_name": self.said(label), "answer_name": self.said(found.label)}
        return told

    def _wrong(self) -> list[dict[str, int]]:
        pairs = zip(self.screened.misclassified, self.screened.answers, strict=True)
        return [{"place": int(place), "answer": int(answer)} for place, answer in pairs]


def amplified(delta: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    """Return a change scaled to the middle of [0, 1], its largest value at an end."""
    largest = float(delta.abs().max())
    return 0.5 + delta / (2 * largest) if largest > 0 else torch.full_like(delta, 0.5)
