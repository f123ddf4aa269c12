"""What a method is: settings, and the parts that it is made of for a module.

    a step = finder (asks, estimates) -> acceptance (how far) -> mover (x moves) -> after

To add a method, write a frozen dataclass of settings with `recipe`, and use an instance of it, or
name it in METHODS (docs/zeroth_order.md shows one).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from fedzo.config import check_types, require
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(ABC):
    """Settings that all methods have. mu: smoothing radius, in units of x."""

    mu: float = 2.0**-10
    num_directions: int = 1

    asks_values: ClassVar[bool] = True
    """Whether it gets by with values of the loss; otherwise it differentiates forward."""

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.mu < float("inf"), "mu", self.mu, "positive and finite")
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")

    @abstractmethod
    def recipe(self, view: View, seed: int) -> Recipe:
        """Return the parts that train a view of a module."""
