"""What users tell of points, checked: values, rankings, reasons of failures, counts."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.failure import failure_of


def as_values(values: Any, count: int) -> list[float | None]:
    """Return a number a point, None for a failure; raises ConfigError for anything else."""
    given = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    flat = [given] if np.ndim(given) == 0 and count == 1 else list(given)
    if len(flat) != count:
        raise ConfigError(f"values has {len(flat)} entries for {count} points; give one a point")
    return [_as_value(value) for value in flat]


def _as_value(value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, str | bytes):
            raise TypeError("text")
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"a value is {value!r:.60}; give one real number a point, or None for a failure"
        ) from error
    return number if math.isfinite(number) else None


def as_ranking(ranking: Sequence[int], count: int) -> list[int]:
    """Return positions from the best to the worst; raises ConfigError unless each is there once."""
    order = [int(place) for place in ranking]
    if sorted(order) != list(range(count)):
        raise ConfigError(
            f"ranking={order!r:.60} must hold each of 0 to {count - 1} once, the best point first"
        )
    return order


def as_reasons(failures: Any, count: int) -> list[str]:
    """Return why each point has failed; one reason may stand for all."""
    single = isinstance(failures, str | BaseException)
    reasons = [failures] * count if single else list(failures)
    if len(reasons) != count:
        raise ConfigError(f"failures has {len(reasons)} entries for {count} points; give one each")
    return [failure_of(r) if isinstance(r, BaseException) else str(r) for r in reasons]


def require_whole(name: str, value: object, least: int) -> None:
    """Raise ConfigError unless a value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name}={value!r} must be a whole number of at least {least}")
