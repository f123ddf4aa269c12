"""Between what users see and what methods see: points of a box, or named values of any kind.

    number:             x = clip(x0 + scale z, lower, upper)
    typed variable:     x = variable.value(z in [0, 1]^size)     (fedzo.blackbox.variables)

scale is the width of the box where both bounds are finite, else step / 0.3; so methods find their
start at about 0 and take a step of 0.3 where the user expects the best point.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fedzo.blackbox import variables
from fedzo.blackbox.arrays import plain
from fedzo.blackbox.method import FIRST_SPREAD
from fedzo.errors import ConfigError

Points = NDArray[np.float64] | list[Any]
"""Points as users see them: an array [n, d], or a list of dicts or of lists."""


@runtime_checkable
class Space(Protocol):
    """Where points live, and the coordinates in which methods search.

    count: how many points there are; None where a number is real.
    """

    count: int | None
    start: Float[Tensor, " d"]
    lower: Float[Tensor, " d"]
    upper: Float[Tensor, " d"]
    least: Float[Tensor, " d"]

    def points(self, z: NDArray[np.float64]) -> Points:
        """Return the points [n, ...] at coordinates [n, d]."""
        ...

    def key(self, point: Any) -> Hashable:
        """Return what equal points have in common; raises ConfigError for what is no point."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Return what `restore_space` makes the same space of."""
        ...


class Box:
    """Points of real numbers, arrays [d], between bounds that may be infinite."""

    count: int | None = None

    def __init__(
        self,
        x0: NDArray[np.float64],
        lower: NDArray[np.float64],
        upper: NDArray[np.float64],
        scale: NDArray[np.float64],
    ) -> None:
        self._x0, self._lower, self._upper, self._scale = x0, lower, upper, scale
        self.start = torch.zeros(len(x0), dtype=torch.float64)
        self.lower = torch.from_numpy((lower - x0) / scale)
        self.upper = torch.from_numpy((upper - x0) / scale)
        self.least = torch.zeros(len(x0), dtype=torch.float64)

    def points(self, z: NDArray[np.float64]) -> Points:
        return np.clip(self._x0 + self._scale * z, self._lower, self._upper)

    def key(self, point: Any) -> Hashable:
        given = np.asarray(point, dtype=np.float64)
        if given.shape != self._x0.shape:
            raise ConfigError(
                f"a point has shape {given.shape}; it has {len(self._x0)} numbers, as ask gave;"
                " tell a single one as [point]"
            )
        return given.tobytes()

    def facts(self) -> Mapping[str, Any]:
        arrays = (self._x0, self._lower, self._upper, self._scale)
        return {"box": [array.tolist() for array in arrays]}


class Mixed:
    """Points of typed variables: dicts by name, or lists where variables have no names."""

    def __init__(
        self, kinds: Sequence[variables.Variable], names: Sequence[str] | None, start: object = None
    ) -> None:
        self._kinds, self._names = list(kinds), list(names) if names is not None else None
        ends = np.cumsum([kind.size for kind in kinds])
        self._slices = [slice(e - k.size, e) for e, k in zip(ends.tolist(), kinds, strict=True)]
        self.start = torch.from_numpy(np.concatenate(self._start(start)))
        self.lower, self.upper = torch.zeros_like(self.start), torch.ones_like(self.start)
        least = [np.full(kind.size, kind.least) for kind in kinds]
        self.least = torch.from_numpy(np.concatenate(least))
        counts = [kind.count for kind in kinds if kind.count is not None]
        self.count = math.prod(counts) if len(counts) == len(kinds) else None

    def points(self, z: NDArray[np.float64]) -> Points:
        return [self._point(row) for row in z]

    def key(self, point: Any) -> Hashable:
        pairs = zip(self._kinds, self._values(point), strict=True)
        values = [kind.as_given(value) for kind, value in pairs]
        return tuple((type(value).__name__, value) for value in values)

    def facts(self) -> Mapping[str, Any]:
        kinds = [[type(kind).__name__, *_arguments(kind)] for kind in self._kinds]
        return {"kinds": kinds, "names": self._names, "start": self.start.tolist()}

    def _point(self, z: NDArray[np.float64]) -> dict[str, Any] | list[Any]:
        pairs = zip(self._kinds, self._slices, strict=True)
        values = [kind.value(z[own]) for kind, own in pairs]
        return values if self._names is None else dict(zip(self._names, values, strict=True))

    def _values(self, point: Any) -> list[Any]:
        names = self._names
        if names is not None and isinstance(point, Mapping) and set(point) == set(names):
            return [point[name] for name in names]
        point = point.tolist() if isinstance(point, np.ndarray | Tensor) else point
        plain = isinstance(point, list | tuple)
        if names is None and plain and len(point) == len(self._kinds):
            return list(point)
        told = names or f"{len(self._kinds)} values"
        raise ConfigError(f"{point!r:.80} is no point of this space; a point has {told}")

    def _start(self, start: object) -> list[NDArray[np.float64]]:
        if start is None:
            return [kind.middle() for kind in self._kinds]
        pairs = zip(self._kinds, self._values(start), strict=True)
        return [kind.coordinates(value) for kind, value in pairs]


def make_space(x0: Any, bounds: Any, step: float | None) -> Space:
    """Return the space of a start, of bounds, or of both.

    Raises ConfigError, naming the value and the remedy, for what is no space.
    """
    if bounds is None and x0 is None:
        raise ConfigError("x0=None, bounds=None: give a start, bounds, or both")
    step = step.item() if isinstance(step, np.generic) else step
    if step is not None and not (isinstance(step, int | float) and 0 < step < math.inf):
        raise ConfigError(f"step={step!r} must be a positive number; leave it out for the default")
    bounds = plain(bounds)
    kinds = list(bounds.values()) if isinstance(bounds, Mapping) else bounds
    if isinstance(bounds, Mapping):
        _check_names(bounds)
    if isinstance(bounds, Mapping) or _is_typed(kinds):
        names = list(bounds) if isinstance(bounds, Mapping) else None
        if step is not None:
            raise ConfigError(f"step={step} has no effect on typed variables; leave it out")
        return Mixed([_typed(kind) for kind in kinds], names, x0)
    return _box(x0, bounds, step)


def _check_names(bounds: Mapping[Any, Any]) -> None:
    if not bounds:
        raise ConfigError("bounds={} names no variable; give at least one")
    wrong = [name for name in bounds if not isinstance(name, str)]
    if wrong:
        raise ConfigError(f"bounds: the name {wrong[0]!r} is no text; name variables by texts")


def restore_space(facts: Mapping[str, Any]) -> Space:
    """Return the space that has these facts."""
    if "box" in facts:
        return Box(*(np.asarray(row, dtype=np.float64) for row in facts["box"]))
    kinds = [getattr(variables, name)(*arguments) for name, *arguments in facts["kinds"]]
    space = Mixed(kinds, facts["names"])
    space.start = torch.tensor(facts["start"], dtype=torch.float64)
    return space


def _arguments(kind: variables.Variable) -> list[Any]:
    if isinstance(kind, variables.Choice):
        return list(kind.options)
    return [kind.low, kind.high]  # type: ignore[attr-defined]


def _is_typed(bounds: object) -> bool:
    return isinstance(bounds, list | tuple) and any(
        isinstance(entry, variables.Variable) for entry in bounds
    )


def _typed(entry: object) -> variables.Variable:
    """Return a typed variable; a pair of numbers is a Float."""
    if isinstance(entry, variables.Variable):
        return entry
    if isinstance(entry, list | tuple) and len(entry) == 2:
        return variables.Float(*entry)
    raise ConfigError(f"{entry!r:.60} is no variable; give Float, Log, Int, Choice or (low, high)")


def _box(x0: Any, bounds: Any, step: float | None) -> Box:
    if isinstance(x0, Mapping):
        raise ConfigError(f"x0={x0!r:.60} has names; say what they may be: bounds={{...}}")
    start = None if x0 is None else _vector("x0", x0)
    lower, upper = _ends(bounds, start)
    if start is None:
        if not np.isfinite([lower, upper]).all():
            raise ConfigError(
                f"bounds={bounds!r:.60} have an end at infinity, so there is no middle; give x0"
            )
        start = (
            lower / 2 + upper / 2 if np.isinf(upper - lower).any() else lower + (upper - lower) / 2
        )
    outside = np.flatnonzero((start < lower) | (start > upper))
    if len(outside):
        i = int(outside[0])
        raise ConfigError(
            f"x0[{i}]={start[i]} lies outside of its bounds [{lower[i]}, {upper[i]}]; start inside"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        width = upper - lower
    wide = np.isfinite(lower) & np.isfinite(upper) & ~np.isfinite(width)
    if wide.any():
        i = int(np.flatnonzero(wide)[0])
        raise ConfigError(
            f"bounds[{i}]=({lower[i]}, {upper[i]}) are further apart than a float64 can say; give"
            " nearer ones, or None where there is no bound"
        )
    usual = np.where(np.isfinite(width), width, 1 / FIRST_SPREAD)
    scale = usual if step is None else np.full(len(start), step / FIRST_SPREAD)
    return Box(start, lower, upper, np.where(scale > 0, scale, 1.0))


def _ends(
    bounds: Any, start: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper [d] of one pair for all coordinates, or of a pair for each."""
    if bounds is None:
        bounds = (None, None)
    rows = list(bounds) if isinstance(bounds, list | tuple | np.ndarray) else []
    single = len(rows) == 2 and not any(isinstance(end, list | tuple | np.ndarray) for end in rows)
    if single and start is None:
        raise ConfigError(
            f"bounds={bounds!r} do not say how many numbers a point has; give a pair for each, such"
            f" as [{bounds!r}] * 10, or x0"
        )
    pairs = [rows] * len(start) if single and start is not None else rows
    if not pairs or any(np.shape(pair) != (2,) for pair in pairs):
        raise ConfigError(f"bounds={bounds!r:.60} must be a pair (low, high) for each number of x")
    if start is not None and len(pairs) != len(start):
        raise ConfigError(
            f"bounds has {len(pairs)} pairs and x0 {len(start)} numbers; make them fit"
        )
    lower = _vector("bounds", [-math.inf if p[0] is None else p[0] for p in pairs], finite=False)
    upper = _vector("bounds", [math.inf if p[1] is None else p[1] for p in pairs], finite=False)
    wrong = np.flatnonzero(~(lower <= upper) | (lower == math.inf) | (upper == -math.inf))
    if len(wrong):
        i = int(wrong[0])
        raise ConfigError(
            f"bounds[{i}]=({lower[i]}, {upper[i]}) hold no number; low must not exceed high"
        )
    return lower, upper


def _vector(name: str, value: Any, *, finite: bool = True) -> NDArray[np.float64]:
    """Return numbers [d] as a new array."""
    try:
        array = np.array(plain(value))
        real = array.astype(np.float64) if array.dtype.kind in "iuf" else None
    except (TypeError, ValueError):
        real = None
    if real is None or real.ndim != 1 or not len(real):
        raise ConfigError(f"{name}={value!r:.60} must be a vector of real numbers")
    if np.isnan(real).any() or (finite and not np.isfinite(real).all()):
        what = "NaN or infinity; give finite numbers" if finite else "NaN; give numbers, or None"
        raise ConfigError(f"{name}={value!r:.60} holds {what}")
    return real
