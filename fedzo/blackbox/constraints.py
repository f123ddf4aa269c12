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
from fedzo.blackbox.evaluate import Answer, Evaluator, own
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


def within(evaluate: Evaluator, constraints: tuple[Constraint, ...]) -> Evaluator:
    """Return what evaluates the points that the constraints allow, and measures the others."""
    if not constraints:
        return evaluate

    def checked(points: Any) -> list[Answer]:
        answers = [_violation(constraints, point) for point in points]
        allowed = [i for i, a in enumerate(answers) if not a.reason and a.violation == 0]
        if allowed:
            chosen = [points[i] for i in allowed]
            some = np.stack(chosen) if isinstance(points, np.ndarray) else chosen
            for i, found in zip(allowed, evaluate(some), strict=True):
                answers[i] = found
        return answers

    return checked


def _violation(constraints: tuple[Constraint, ...], point: Any) -> Answer:
    """Return how far a point is from allowed; a constraint that raises or is NaN fails it."""
    try:
        rows = [_numbers(g(own(point))) for g in constraints]
    except BaseException as error:
        return Answer(math.nan, f"a constraint: {failure_of(error)}")
    told = np.concatenate(rows)
    if np.isnan(told).any():
        return Answer(math.nan, "a constraint is NaN")
    return Answer(math.nan, violation=as_violations([told], 1)[0])


def _numbers(told: Any) -> NDArray[np.float64]:
    """Return what a constraint says; raises TypeError for what is no real number."""
    numbers = plain(told)
    if numbers is None or np.iscomplexobj(numbers):
        raise TypeError(f"it returned {told!r:.40}, and a number is at most 0 or above")
    return np.asarray(numbers, dtype=float).ravel()
