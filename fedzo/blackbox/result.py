"""What a search has found, for people and for programs."""

import html
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedzo.blackbox.space import Points

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Result:
    """The best point and how it was found.

    x: as the user gave and gets points; None before the first success. value: its value, NaN where
    only rankings were told. evaluations: points that were told, `failures` of them failed;
    first_failure says why one did. points, values: all that were told, in the order of asking, NaN
    for failures.
    method: what the user chose; why: which method has searched, and the reason. stop: why it ended.
    """

    x: Any
    value: float
    evaluations: int
    failures: int
    first_failure: str
    points: Points
    values: NDArray[np.float64]
    method: str
    why: str
    stop: str
    seed: int

    @property
    def best_values(self) -> NDArray[np.float64]:
        """The lowest value after each evaluation [n], inf before the first success."""
        known = np.where(np.isfinite(self.values), self.values, math.inf)
        return np.minimum.accumulate(known)

    def __repr__(self) -> str:
        return "\n".join(f"{name + ':':<13}{told}" for name, told in self._lines())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{name}</th><td>{html.escape(told)}</td></tr>" for name, told in self._lines()
        )
        return f"<table>{rows}</table>"

    def _lines(self) -> list[tuple[str, str]]:
        failed = f", {self.failures} failed ({self.first_failure})" if self.failures else ""
        value = (
            "unknown, only rankings were told" if math.isnan(self.value) else f"{self.value:.6g}"
        )
        return [
            ("value", value if self.x is not None else "none, no evaluation has succeeded"),
            ("x", _shown(self.x)),
            ("evaluations", f"{self.evaluations}{failed}"),
            ("method", f"{self.method}: {self.why}"),
            ("stop", self.stop or "not ended"),
        ]


def _shown(x: Any) -> str:
    """Return a point, of a long one its beginning."""
    if not isinstance(x, np.ndarray):
        return str(x)
    numbers = ", ".join(f"{number:.4g}" for number in x[:_SHOWN])
    return f"[{numbers}]" if len(x) <= _SHOWN else f"[{numbers}, ...] ({len(x)} numbers)"
