"""Constraints g(x) <= 0 of a search: looked at first, so that f is called where all of them hold.

Which infeasible point is better follows Deb, "An efficient constraint handling method for genetic
algorithms", Computer Methods in Applied Mechanics and Engineering 2000: any feasible point before
any infeasible one, and among these the least sum of violations. Differs from the paper: this orders
a generation of CMA-ES, where the paper holds tournaments.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedzo.blackbox.arrays import plain
from fedzo.blackbox.evaluate import Answer, own
from fedzo.blackbox.told import as_violations
from fedzo.errors import ConfigError
from fedzo.failure import failure_of

Constraint = Callable[[Any], Any]


def as_constraints(constraints: Any) -> tuple[Constraint, ...]:
    """Return functions of a point; raises ConfigError for what is none."""
    given = (constraints,) if callable(constraints) else constraints
    if not isinstance(given, Sequence) or not all(map(callable, given)):
        raise ConfigError(
            f"constraints={constraints!r:.60} must be functions of a point that return at most 0"
            " where it is allowed, as in [lambda x: x.sum() - 1]"
        )
    return tuple(given)


def violation_of(constraints: Sequence[Constraint], point: Any) -> Answer | None:
    """Return how far a point is from allowed, None where it is: one that raises or is NaN fails."""
    if not constraints:
        return None
    try:
        rows = [_numbers(g(own(point))) for g in constraints]
    except BaseException as error:
        return Answer(math.nan, f"a constraint: {failure_of(error)}")
    told = np.concatenate(rows)
    if np.isnan(told).any():
        return Answer(math.nan, "a constraint is NaN")
    above = as_violations([told], 1)[0]
    return Answer(math.nan, violation=above) if above > 0 else None


def _numbers(told: Any) -> NDArray[np.float64]:
    """Return what a constraint says; raises TypeError for what is no real number."""
    numbers = plain(told)
    parts = numbers if isinstance(numbers, list | tuple) else [numbers]
    is_truth = any(np.asarray(part).dtype.kind == "b" for part in parts)
    if numbers is None or np.iscomplexobj(numbers) or is_truth:
        raise TypeError(
            f"it returned {told!r:.40}; return a number, at most 0 where the point is allowed"
        )
    return np.asarray(numbers, dtype=float).ravel()
