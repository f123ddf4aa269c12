"""Several attackers at several radii, on the same images of one victim.

    robust accuracy(radius) = share of the images asked that are answered right, and still are after
                              the attack, there and at all smaller radii, for what has changed an
                              answer there lies in this ball too;  at radius 0 the accuracy

Every cell is what a single attack gives; the images are screened once, for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from fedzo.records.facts import Fact, ShownByFacts
from scenarios.attacks.attack_result import Report


@dataclass(frozen=True, slots=True, repr=False)
class AttackTable(ShownByFacts):
    """A report for every attacker at every radius, attacker by attacker, smaller radii first."""

    reports: Sequence[Report]

    @property
    def attackers(self) -> list[str]:
        """The attackers, in the order in which they were given."""
        return list(dict.fromkeys(report.attacker for report in self.reports))

    @property
    def radii(self) -> list[float]:
        """The radii, smaller ones first."""
        return sorted({report.plan.settings.radius for report in self.reports})

    @property
    def accuracy(self) -> float | None:
        """The share of the images asked that the victim gets right; None where nobody can say."""
        first = self.reports[0]
        return None if first.tells == "order" else first.screened.accuracy

    def of(self, attacker: str) -> list[Report]:
        """Return the reports of one attacker, smaller radii first."""
        return [report for report in self.reports if report.attacker == attacker]

    def robust_accuracy(self, report: Report) -> float:
        """Return the share of the images that withstand an attacker up to the radius of a report.

        Attacks with one change for all images are looked at alone.
        """
        if report.plan.settings.universal:
            return report.robust_accuracy
        radius = report.plan.settings.radius
        within = [one for one in self.of(report.attacker) if one.plan.settings.radius <= radius]
        standing = [all(each) for each in zip(*(one.standing for one in within), strict=True)]
        return report.screened.accuracy * mean(map(float, standing))

    def __str__(self) -> str:
        return "\n".join(str(report) for report in self.reports)

    def heading(self) -> str:
        return f"{len(self.attackers)} attackers at {len(self.radii)} radii"

    def facts(self) -> Sequence[Fact]:
        return [
            (
                f"{report.attacker}, {report.plan.settings.radius:g}",
                f"robust accuracy {self.robust_accuracy(report):.0%}, {report}",
            )
            for report in self.reports
        ]

    def summary(self) -> dict[str, Any]:
        """Return what `--json` prints, without the victim's name."""
        cells = [
            one.summary() | {"robust_accuracy": self.robust_accuracy(one)} for one in self.reports
        ]
        first = cells[0]
        shared = ("tells", "norm", "query_budget", "seed", "images", "misclassified")
        summed = ("queries", "screening_queries", "victim_queries", "replayed", "cost", "wall_s")
        return {
            "attackers": self.attackers,
            "radii": self.radii,
            **{name: first[name] for name in shared},
            "accuracy": self.accuracy,
            "most_queries": sum(report.plan.most_queries for report in self.reports),
            **{name: sum(cell[name] for cell in cells) for name in summed},
            "cells": cells,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the summary, and all images of every attack."""
        cells = [
            one.to_json() | {"robust_accuracy": self.robust_accuracy(one)} for one in self.reports
        ]
        return {**self.summary(), "cells": cells}
