"""What a method is: settings, and the parts that it is made of for a module.

    a step = finder (asks, estimates) -> acceptance (how far) -> mover (x moves) -> after

To add a method, write a frozen dataclass of settings with `recipe`, and use an instance of it, or
name it in METHODS (docs/zeroth_order.md shows one).
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from fedzo.config import check_types, require
from fedzo.errors import FedzoWarning
from fedzo.estimation.view import View
from fedzo.finetuning.accepting import Acceptance, Always
from fedzo.finetuning.finding import Finder
from fedzo.finetuning.moving import InPlaceSGD, Mover


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The parts of a method. after: what is done to x when it has moved."""

    finder: Finder
    mover: Mover = field(default_factory=InPlaceSGD)
    acceptance: Acceptance = field(default_factory=Always)
    after: Callable[[View], None] | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a setting may be, in words, and whether a value is."""

    told: str
    holds: Callable[[float], bool]


AT_LEAST_1 = Allowed("at least 1", lambda value: value >= 1)
AT_LEAST_2 = Allowed("at least 2, for values are compared", lambda value: value >= 2)
NOT_NEGATIVE = Allowed("0 or more, and finite", lambda value: 0 <= value < float("inf"))
POSITIVE = Allowed("positive and finite", lambda value: 0 < value < float("inf"))
FACTOR = Allowed("at least 0 and below 1", lambda value: 0 <= value < 1)
SHARE = Allowed("above 0 and at most 1", lambda value: 0 < value <= 1)
FROM_0_TO_1 = Allowed("from 0 to 1", lambda value: 0 <= value <= 1)
ABOVE_0 = Allowed("positive", lambda value: value > 0)
USELESS = Allowed("without effect", lambda value: value == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(ABC):
    """Settings that all methods have. mu: smoothing radius, in units of x."""

    mu: float = 2.0**-10
    num_directions: int = 1

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {}
    """What settings may be, where that is less than their types say."""
    asks_values: ClassVar[bool] = True
    """Whether it gets by with values of the loss; otherwise it differentiates forward."""

    def __post_init__(self) -> None:
        check_types(self)
        every = {"mu": POSITIVE, "num_directions": AT_LEAST_1}
        for name, allowed in {**every, **self.ALLOWED}.items():
            value = getattr(self, name)
            if allowed is USELESS and not allowed.holds(value):
                told = f"{name}={value} has no effect on {type(self).__name__}; leave it out"
                warnings.warn(told, FedzoWarning, stacklevel=4)
                continue
            require(allowed.holds(value), name, value, allowed.told)

    @abstractmethod
    def recipe(self, view: View, seed: int) -> Recipe:
        """Return the parts that train a view of a module."""
