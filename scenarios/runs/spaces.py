"""What a sweep may choose: KEY=V,V,... or KEY=log:LOW..HIGH, lin:LOW..HIGH, int:LOW..HIGH.

Values are cut to four digits, so that what is reported is what ran. A text with neither commas
(outside of parentheses) nor a range is one value: a setting like any other.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from fedzo.setting_texts import parse_setting, parse_settings

_RANGE = re.compile(r"(log|lin|int):(.+)\.\.(.+)")
_LIKE_RANGE = re.compile(r"[a-zA-Z]\w*:[-+.eE\d]+\.\.[-+.eE\d]+")


@dataclass(frozen=True, slots=True)
class Choices:
    """Some values."""

    values: Sequence[Scalar]

    @property
    def ends(self) -> Sequence[Scalar]:
        """What to try whether it is allowed."""
        return self.values

    def draw(self, generator: np.random.Generator) -> Scalar:
        """Return one of the values."""
        return self.values[int(generator.integers(len(self.values)))]


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high: on a logarithmic scale, a linear one, or whole ones."""

    kind: Literal["log", "lin", "int"]
    low: float
    high: float

    @property
    def ends(self) -> Sequence[Scalar]:
        """What to try whether it is allowed."""
        return [int(e) if self.kind == "int" else e for e in (self.low, self.high)]

    @property
    def between(self) -> Scalar:
        """A number inside the range that is whole only where all are."""
        return self.cut(self.low + 0.3819 * (self.high - self.low))

    def draw(self, generator: np.random.Generator) -> Scalar:
        """Return a number of the range."""
        if self.kind == "int":
            return int(generator.integers(int(self.low), int(self.high) + 1))
        share = float(generator.random())
        if self.kind == "log":
            low, high = math.log(self.low), math.log(self.high)
            return self.cut(math.exp(low + share * (high - low)))
        return self.cut(self.low + share * (self.high - self.low))

    def cut(self, value: float) -> Scalar:
        """Return a number with four digits, inside the range."""
        if self.kind == "int":
            return int(value)
        return min(max(float(f"{value:.4g}"), self.low), self.high)


Space = Choices | Range


def parse_spaces(texts: Sequence[str]) -> tuple[dict[str, Space], list[str]]:
    """Split settings KEY=... into what is to be chosen, and the texts of those that are given.

    Raises ConfigError for ranges that are none.
    """
    spaces: dict[str, Space] = {}
    given: list[str] = []
    for text in texts:
        key = parse_setting(text)[0]
        raw = text.partition("=")[2].strip()
        parts = [part.strip() for part in re.split(r",(?![^()]*\))", raw) if part.strip()]
        if _RANGE.fullmatch(raw):
            spaces[key] = _range(key, raw)
        elif raw.startswith(("log:", "lin:", "int:")) or _LIKE_RANGE.fullmatch(raw):
            raise _no_range(key, raw)
        elif len(parts) > 1:
            values = [parse_setting(f"{key}={part}")[1] for part in parts]
            if len({(isinstance(value, bool), value) for value in values}) < len(values):
                raise ConfigError(f"--set {text!r}: the values must differ")
            spaces[key] = Choices(values)
        else:
            given.append(text)
    twice = sorted(spaces.keys() & parse_settings(given).keys())
    if twice:
        raise ConfigError(f"--set {twice[0]} is given a value and several; name it once")
    return spaces, given


def combinations(spaces: Mapping[str, Space]) -> int | None:
    """Return how many choices there are; None where a range has no end of them."""
    count = 1
    for space in spaces.values():
        if isinstance(space, Range):
            return None
        count *= len(space.values)
    return count


def _range(key: str, raw: str) -> Range:
    found = _RANGE.fullmatch(raw)
    assert found is not None
    try:
        low, high = float(found[2]), float(found[3])
    except ValueError as error:
        raise _no_range(key, raw) from error
    kind = found[1]
    whole = kind != "int" or (low.is_integer() and high.is_integer())
    if not (low < high < math.inf and low > -math.inf and whole and (kind != "log" or low > 0)):
        raise _no_range(key, raw)
    return Range(kind, low, high)  # type: ignore[arg-type]


def _no_range(key: str, raw: str) -> ConfigError:
    return ConfigError(
        f"{key}={raw} is no range; write log:LOW..HIGH or lin:LOW..HIGH with LOW below HIGH, of"
        " positive numbers for log, or int:LOW..HIGH of whole ones, such as log:1e-3..1e-1"
    )
