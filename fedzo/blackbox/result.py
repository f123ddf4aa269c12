"""What a search has found, for people and for programs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedzo.blackbox.evaluations import FAILED, INFEASIBLE, UNDER_WAY, Evaluations
from fedzo.blackbox.space import Points, Space
from fedzo.records.facts import Fact, ShownByFacts

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Result(ShownByFacts):
    """The best point and how it was found.

    x: as the user gave and gets points; None before the first success. value: its value, NaN where
    only rankings were told. evaluations: points that were told, `failures` of them failed;
    first_failure says why one did. points, values: all that were told, in the order of asking, NaN
    for failures and infeasible points; violations: 0, and more for infeasible points. repeats: of
    `minimize`, those that it had asked before, for which it called no function. method: what the
    user chose; why: which method has searched, and the reason. stop: why it ended; exhausted: where
    it went, there was nothing new that is allowed.
    """

    WIDTH: ClassVar[int] = 13

    x: Any
    value: float
    evaluations: int
    failures: int
    first_failure: str
    points: Points
    values: NDArray[np.float64]
    violations: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    repeats: int = 0
    method: str
    why: str
    stop: str
    seed: int

    @property
    def best_values(self) -> NDArray[np.float64]:
        """The lowest value after each evaluation [n], inf before the first success."""
        known = np.where(np.isfinite(self.values), self.values, math.inf)
        return np.minimum.accumulate(known)

    def facts(self) -> Sequence[Fact]:
        infeasible = int((self.violations > 0).sum())
        outside = f", {infeasible} infeasible" if infeasible else ""
        outside += f", {self.repeats} repeated" if self.repeats else ""
        failed = f", {self.failures} failed ({self.first_failure})" if self.failures else ""
        return [
            ("value", self._value_told(infeasible)),
            ("x", _shown(self.x)),
            ("evaluations", f"{self.evaluations}{outside}{failed}"),
            ("method", f"{self.method}: {self.why}"),
            ("stop", self.stop or "not ended"),
        ]

    def _value_told(self, infeasible: int) -> str:
        if self.x is None and infeasible:
            least = self.violations[self.violations > 0].min()
            return f"none, no point was feasible; the least violation was {least:.3g}"
        if self.x is None:
            return "none, no evaluation has succeeded"
        return "unknown, only rankings were told" if math.isnan(self.value) else f"{self.value:.6g}"


def make_result(space: Space, table: Evaluations, *, best: int, **facts: Any) -> Result:
    """Return the result of a search; best: number of the best point, -1 where there is none."""
    told = np.flatnonzero(table.status != UNDER_WAY)
    return Result(
        x=space.points(table.points[[best]])[0] if best >= 0 else None,
        value=float(table.values[best]) if best >= 0 else math.inf,
        evaluations=len(told),
        failures=int((table.status == FAILED).sum()),
        points=space.points(table.points[told]),
        values=table.objective()[told],
        violations=np.where(table.status == INFEASIBLE, table.values, 0.0)[told],
        **facts,
    )


def _shown(x: Any) -> str:
    """Return a point, of a long one its beginning."""
    if not isinstance(x, np.ndarray):
        return str(x)
    numbers = ", ".join(f"{number:.4g}" for number in x[:_SHOWN])
    return f"[{numbers}]" if len(x) <= _SHOWN else f"[{numbers}, ...] ({len(x)} numbers)"
