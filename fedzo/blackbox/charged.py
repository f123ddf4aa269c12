"""What is charged of a search: calls of the function.

A point that constraints forbid is not asked. Where all variables move in steps, neither is one that
was asked before: its answer is known.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedzo.blackbox.constraints import Constraint, violation_of
from fedzo.blackbox.evaluate import Answer, Evaluator

FREE = 20
"""Points for each evaluation that may be free; a search that finds so many has nowhere to go."""


@dataclass(slots=True)
class Charged:
    """Evaluates points while there is something left to spend.

    key: of a point, where it is to be remembered. left: calls that remain. most: how many points
    there are, where they are remembered. repeats: points whose answers were known.
    """

    evaluate: Evaluator
    limits: Sequence[Constraint]
    key: Callable[[Any], Hashable] | None
    left: int
    most: int | None = None
    repeats: int = 0
    known: dict[Hashable, Answer] = field(default_factory=dict)

    def __call__(self, points: Any) -> list[Answer | None]:
        """Return what became of each point, None for those for which nothing was left."""
        found: list[Answer | None] = [violation_of(self.limits, point) for point in points]
        keys = [number if self.key is None else self.key(p) for number, p in enumerate(points)]
        asked: dict[Hashable, int] = {}
        for place, (key, answer) in enumerate(zip(keys, found, strict=True)):
            free = answer is not None and not answer.reason
            if free or key in self.known or key in asked:
                continue
            if self.left and answer is None:
                asked[key] = place
            elif not self.left:
                found[place] = None  # what a constraint has failed at costs as much
            self.left = max(0, self.left - 1)
        if asked:
            chosen = [points[place] for place in asked.values()]
            some = np.stack(chosen) if isinstance(points, np.ndarray) else chosen
            told = dict(zip(asked, self.evaluate(some), strict=True))
            self.known.update(told)
        for place, key in enumerate(keys):
            if found[place] is None and key in self.known:
                found[place] = self.known[key]
                self.repeats += asked.get(key) != place
        if self.key is None:
            self.known.clear()
        return found

    @property
    def exhausted(self) -> bool:
        """Whether every point of a space of steps is known."""
        return self.most is not None and len(self.known) >= self.most
