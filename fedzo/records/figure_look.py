"""How a figure is to look: scales, limits, size and style, checked before anything is drawn."""

import math
from dataclasses import dataclass
from pathlib import Path

from fedzo.errors import ConfigError

Limits = tuple[float | None, float | None]
USUAL_SIZE = (7.0, 4.5)
_LARGEST = 100.0
_INCH = "inches from 0.5 to 100, such as 3.5,2.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureLook:
    """What a user wants of a figure; None is fedzo's own choice.

    logx, logy: whether an axis is logarithmic; of y, without a wish, where all is above 0. xlim,
    ylim: both ends of an axis, one of which may be None. size: width and height in inches. style:
    a style of matplotlib by name, or the path of a file of one.
    """

    logx: bool | None = None
    logy: bool | None = None
    xlim: Limits | None = None
    ylim: Limits | None = None
    size: tuple[float, float] | None = None
    style: str | Path | None = None

    def __post_init__(self) -> None:
        _check_limits("xlim", self.xlim, "logx", self.logx)
        _check_limits("ylim", self.ylim, "logy", self.logy)
        if self.size is not None and not all(0.5 <= side <= _LARGEST for side in self.size):
            raise ConfigError(f"size={_told(self.size)} must be {_INCH}")
        if self.style is not None:
            from fedzo.records.figure_style import read_style  # matplotlib, for who wants a style

            read_style(self.style)


def parse_limits(text: str, name: str) -> Limits:
    """Split LOW,HIGH, either of which may be left out; raises ConfigError for anything else."""
    found = [_number(part) for part in text.split(",")]
    if len(found) != 2 or any(end is not None and math.isnan(end) for end in found):
        raise ConfigError(
            f"{name} {text!r} is not LOW,HIGH; write for example 0.01,10, or 0.01, for the low end"
        )
    return found[0], found[1]


def parse_size(text: str) -> tuple[float, float]:
    """Split W,H, inches; raises ConfigError for anything else."""
    found = [_number(part) for part in text.split(",")]
    if len(found) != 2 or any(side is None or math.isnan(side) for side in found):
        raise ConfigError(f"--size {text!r} is not W,H; write {_INCH}")
    return found[0] or 0.0, found[1] or 0.0


def _number(text: str) -> float | None:
    """Return a number, None for nothing, NaN for what is no number."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return math.nan


def _check_limits(name: str, limits: Limits | None, flag: str, log: bool | None) -> None:
    if limits is None:
        return
    given = [end for end in limits if end is not None]
    if not given or not all(map(math.isfinite, given)):
        raise ConfigError(f"{name}={_told(limits)} must be finite numbers, one of them at least")
    if len(given) == 2 and given[0] >= given[1]:
        raise ConfigError(f"{name}={_told(limits)} must go up; write the lower end first")
    if log and given[0] <= 0:
        raise ConfigError(
            f"{name}={_told(limits)} must be above 0, for {flag} draws a logarithm; raise the low"
            f" end, or leave {flag} out"
        )


def _told(numbers: tuple[float | None, ...]) -> str:
    return ",".join("" if number is None else f"{number:g}" for number in numbers)
