"""What one variable may be: a number, a number on a scale of powers, a whole number, a choice.

Each has coordinates of its own, in which methods search: a number one, from 0 to 1 between its
bounds; a choice one for every option, of which the largest is chosen.
"""

import math
import sys
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedzo.errors import ConfigError

Value = float | int | str | bool
"""What a variable can be told as."""


@runtime_checkable
class Variable(Protocol):
    """A variable with `size` coordinates in [0, 1], which move in steps of `least` (0: real).

    count: how many values it has, None for a real number.
    """

    @property
    def size(self) -> int: ...

    @property
    def least(self) -> float: ...

    @property
    def count(self) -> int | None: ...

    def value(self, z: NDArray[np.float64]) -> Value:
        """Return what the coordinates [size] stand for."""
        ...

    def coordinates(self, value: object) -> NDArray[np.float64]:
        """Return coordinates [size] of a value; raises ConfigError for one that is not allowed."""
        ...

    def as_given(self, value: object) -> object:
        """Return an equal value as `value` gives it: of numpy's or another type; else the same."""
        ...

    def middle(self) -> NDArray[np.float64]:
        """Return the coordinates where a search starts that was told nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Float:
    """A real number between two finite bounds."""

    low: float | np.floating | np.integer
    high: float | np.floating | np.integer
    size = 1
    least = 0.0
    count = None

    def __post_init__(self) -> None:
        _take_ends(self)
        _check_ends("Float", self.low, self.high)

    def value(self, z: NDArray[np.float64]) -> float:
        low, high = float(self.low), float(self.high)
        return min(max(low + float(z[0]) * (high - low), low), high)

    def coordinates(self, value: object) -> NDArray[np.float64]:
        number = _number(self, value, float(self.low), float(self.high))
        return np.array([(number - self.low) / (self.high - self.low)])

    def as_given(self, value: object) -> object:
        return float(value) if _is_number(value) else value

    def middle(self) -> NDArray[np.float64]:
        return np.array([0.5])


@dataclass(frozen=True, slots=True)
class Log:
    """A positive number whose logarithm is searched, such as a learning rate."""

    low: float | np.floating | np.integer
    high: float | np.floating | np.integer
    size = 1
    least = 0.0
    count = None

    def __post_init__(self) -> None:
        _take_ends(self)
        _check_ends("Log", self.low, self.high)
        if self.low <= 0:
            raise ConfigError(f"Log(low={self.low}): low must be positive; use Float for the rest")

    def value(self, z: NDArray[np.float64]) -> float:
        powers = math.log(self.low), math.log(self.high)
        between = math.exp(powers[0] + float(z[0]) * (powers[1] - powers[0]))
        return min(max(between, float(self.low)), float(self.high))

    def coordinates(self, value: object) -> NDArray[np.float64]:
        number = _number(self, value, float(self.low), float(self.high))
        if math.isfinite(self.high / self.low):
            return np.array([math.log(number / self.low) / math.log(self.high / self.low)])
        powers = math.log(self.low), math.log(self.high)
        return np.array([(math.log(number) - powers[0]) / (powers[1] - powers[0])])

    def as_given(self, value: object) -> object:
        return float(value) if _is_number(value) else value

    def middle(self) -> NDArray[np.float64]:
        return np.array([0.5])


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number from low to high, both included."""

    low: int | np.integer
    high: int | np.integer
    size = 1

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            end = getattr(self, name)
            if not isinstance(end, int | np.integer) or isinstance(end, bool):
                raise ConfigError(f"Int({self.low!r}, {self.high!r}): both ends must be whole")
            object.__setattr__(self, name, int(end))
        _check_ends("Int", self.low, self.high)

    @property
    def count(self) -> int:
        return int(self.high - self.low) + 1

    @property
    def least(self) -> float:
        return 1 / self.count

    def value(self, z: NDArray[np.float64]) -> int:
        number = math.floor(float(z[0]) * self.count)
        return self.low + min(max(number, 0), self.count - 1)

    def coordinates(self, value: object) -> NDArray[np.float64]:
        number = _number(self, value, int(self.low), int(self.high))
        if number != int(number):
            raise ConfigError(f"{value!r} is not a whole number; {self} takes whole numbers")
        return np.array([(number - self.low + 0.5) * self.least])

    def as_given(self, value: object) -> object:
        return int(value) if _is_number(value) and float(value).is_integer() else value

    def middle(self) -> NDArray[np.float64]:
        return self.coordinates((self.low + self.high) // 2)


@dataclass(frozen=True, slots=True, init=False)
class Choice:
    """One of several options: texts, numbers or booleans."""

    options: tuple[Value, ...]
    least = 1.0

    def __init__(self, *given: Any) -> None:
        plain = [o.item() if isinstance(o, np.generic) else o for o in given]
        options: Any = tuple(plain)
        wrong = [o for o in options if not isinstance(o, float | int | str | bool) or o != o]
        if wrong:
            raise ConfigError(
                f"Choice: {wrong[0]!r} is no text, number or boolean, and NaN none; name it by one"
            )
        if len(options) < 2 or len({(type(o), o) for o in options}) < len(options):
            raise ConfigError(f"Choice{options!r}: give at least two options, each once")
        object.__setattr__(self, "options", options)

    @property
    def size(self) -> int:
        return len(self.options)

    @property
    def count(self) -> int:
        return len(self.options)

    def value(self, z: NDArray[np.float64]) -> Value:
        return self.options[int(np.argmax(z))]

    def coordinates(self, value: object) -> NDArray[np.float64]:
        if value not in self.options:
            raise ConfigError(f"{value!r} is none of {self.options}; give one of them")
        chosen = self.as_given(value)
        same = [(type(option), option) == (type(chosen), chosen) for option in self.options]
        return np.where(same, 0.75, 0.25)

    def as_given(self, value: object) -> object:
        plain = value.item() if isinstance(value, np.generic) else value
        equal = [option for option in self.options if option == plain]
        return next((o for o in equal if type(o) is type(plain)), [*equal, plain][0])

    def middle(self) -> NDArray[np.float64]:
        return np.full(self.size, 0.5)


def _take_ends(variable: "Float | Log") -> None:
    """Make ends that are numbers of numpy Python's."""
    for name in ("low", "high"):
        end = getattr(variable, name)
        if isinstance(end, np.integer | np.floating):
            object.__setattr__(variable, name, end.item())


def _check_ends(kind: str, low: object, high: object) -> None:
    for end in (low, high):
        if not isinstance(end, int | float) or not abs(end) <= sys.float_info.max:
            raise ConfigError(f"{kind}({low!r}, {high!r}): both ends must be finite numbers")
    if not high - low <= sys.float_info.max:  # type: ignore[operator]
        raise ConfigError(f"{kind}({low}, {high}): the ends are further apart than a float64")
    if not low < high:  # type: ignore[operator]
        raise ConfigError(f"{kind}({low}, {high}): low must be below high; swap or widen them")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _number(variable: object, value: object, low: float, high: float) -> float:
    if not _is_number(value):
        raise ConfigError(f"{value!r} is no number; {variable} takes one")
    if not low <= float(value) <= high:
        raise ConfigError(f"{value!r} lies outside of {variable}; give one from {low} to {high}")
    return float(value)
