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

    key: of a point, where it is to be remembered. left: calls that remain. repeats: points whose
    answers were known.
    """

    evaluate: Evaluator
    limits: Sequence[Constraint]
    key: Callable[[Any], Hashable] | None
    left: int
    repeats: int = 0
    known: dict[Hashable, Answer] = field(default_factory=dict)

    def __call__(self, points: Any) -> list[Answer | None]:
        """Return what became of each point, None for those for which nothing was left."""
        found: list[Answer | None] = [violation_of(self.limits, point) for point in points]
        keys = [number if self.key is None else self.key(p) for number, p in enumerate(points)]
        self._charge_failures(found)
        asked: dict[Hashable, int] = {}
        for place, (key, answer) in enumerate(zip(keys, found, strict=True)):
            if answer is None and key not in self.known and len(asked) < self.left:
                asked.setdefault(key, place)
        if asked:
            chosen = [points[place] for place in asked.values()]
            some = np.stack(chosen) if isinstance(points, np.ndarray) else chosen
            self.left -= len(asked)
            told = dict(zip(asked, self.evaluate(some), strict=True))
            self.known.update(told)
        for place, key in enumerate(keys):
            if found[place] is None and key in self.known:
                found[place] = self.known[key]
                self.repeats += asked.get(key) != place
        if self.key is None:
            self.known.clear()
        return found

    def _charge_failures(self, found: list[Answer | None]) -> None:
        """Count what a constraint has failed at, as far as that goes."""
        for place, answer in enumerate(found):
            if answer is not None and answer.reason:
                found[place] = answer if self.left else None
                self.left = max(0, self.left - 1)
