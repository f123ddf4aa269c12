"""What users tell of points, checked: values, rankings, reasons of failures, counts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fedzo.blackbox.arrays import plain
from fedzo.errors import ConfigError
from fedzo.failure import failure_of


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a point: a value, None for a failure and why, or a violation above 0."""

    value: float | None
    reason: str
    violation: float


def check_what_is_told(
    points: Any, values: Any, ranking: Any, failures: Any, violations: Any
) -> None:
    """Raise ConfigError unless one thing is told of points, or values with violations."""
    if isinstance(points, Mapping):
        raise ConfigError(f"points={points!r:.60} is one point; tell it as [point]")
    if not hasattr(points, "__iter__"):
        raise ConfigError(f"points={points!r:.60} are no points; give a list, as ask gave them")
    given = sum(told is not None for told in (values, ranking, failures))
    if given > 1 or (given == 0 and violations is None):
        raise ConfigError("tell takes one of values, ranking and failures; give exactly one")
    if violations is not None and given and values is None:
        raise ConfigError("violations go with values or stand alone; leave the rest out")


def as_told(count: int, values: Any, failures: Any, violations: Any) -> list[Told]:
    """Return what became of each point; raises ConfigError for what does not fit."""
    reasons = [""] * count if failures is None else as_reasons(failures, count)
    told = [None] * count if values is None else as_values(values, count)
    above = [0.0] * count if violations is None else as_violations(violations, count)
    return [Told(*point) for point in zip(told, reasons, above, strict=True)]


def as_values(values: Any, count: int) -> list[float | None]:
    """Return a number a point, None for a failure; raises ConfigError for anything else."""
    given = plain(values)
    single = count == 1 and not isinstance(given, list | tuple) and np.ndim(given) == 0
    flat = _listed("values", [given] if single else given, count)
    return [_as_value(value) for value in flat]


def _as_value(value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, str | bytes | complex | np.complexfloating):
            raise TypeError("no real number")
        alone = plain(value)
        number = float(alone.item() if isinstance(alone, np.ndarray) else alone)
    except OverflowError:
        return None
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"a value is {value!r:.60}; give one real number a point, or None for a failure"
        ) from error
    return number if math.isfinite(number) else None


def as_ranking(ranking: Any, count: int) -> list[int]:
    """Return positions from the best to the worst; raises ConfigError unless each is there once."""
    order = [
        place.item() if isinstance(place, Tensor | np.generic) else place
        for place in _listed("ranking", ranking, count)
    ]
    numbers = all(isinstance(place, int | float) for place in order)
    if not numbers or sorted(order) != list(range(count)):
        raise ConfigError(
            f"ranking={order!r:.60} must hold each of 0 to {count - 1} once, the best point first"
        )
    return [int(place) for place in order]


def as_violations(violations: Any, count: int) -> list[float]:
    """Return how far each point is from allowed; 0 where all its constraints are at most 0.

    violations: for each point a number, or numbers of its constraints, of which the positive ones
    are added (Deb 2000). Raises ConfigError for anything else, NaN included.
    """
    rows = plain(violations)
    try:
        if np.iscomplexobj(rows):
            raise TypeError("complex")
        if np.asarray(rows).dtype.kind == "b":
            raise TypeError("truth")
        given = np.asarray(rows, dtype=float)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"violations={rows!r:.60} must hold a number a point, or as many for each, at most 0"
            " where it is allowed"
        ) from error
    missing = int(np.isnan(given).sum())
    if given.ndim not in (1, 2) or len(given) != count or missing:
        raise ConfigError(
            f"violations of shape {list(given.shape)} for {count} points, {missing} of them NaN;"
            " give a number or a row of numbers a point, at most 0 where it is allowed, and tell a"
            " point that has none as a failure"
        )
    return np.maximum(given.reshape(count, -1), 0).sum(1).tolist()  # type: ignore[no-any-return]


def as_reasons(failures: Any, count: int) -> list[str]:
    """Return why each point has failed; one reason may stand for all."""
    single = isinstance(failures, str | BaseException)
    reasons = [failures] * count if single else _listed("failures", failures, count)
    wrong = [r for r in reasons if not isinstance(r, str | BaseException)]
    if wrong:
        raise ConfigError(f"failures: {wrong[0]!r:.60} is no reason; give a text or an exception")
    return [failure_of(r) if isinstance(r, BaseException) else str(r) for r in reasons]


def _listed(name: str, given: Any, count: int) -> list[Any]:
    """Return what is told of each point; raises ConfigError unless it is one entry a point."""
    scalar = isinstance(given, np.ndarray | Tensor) and not given.ndim
    if isinstance(given, str | bytes) or scalar or not hasattr(given, "__iter__"):
        raise ConfigError(f"{name}={given!r:.60} is no list; give one entry for each point")
    entries = list(given)
    if len(entries) != count:
        raise ConfigError(f"{name} has {len(entries)} entries for {count} points; give one a point")
    return entries


def require_whole(name: str, value: object, least: int) -> None:
    """Raise ConfigError unless a value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name}={value!r} must be a whole number of at least {least}")
