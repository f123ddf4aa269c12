"""What a run is about: where it starts, and how an x is judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.objectives.box import Bound, check_start

Bring = Callable[[nn.Module], None]
"""Moves a module's trained parameters to x."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of an x: the global objective F, metrics, and whether the goal is reached."""

    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    solved: bool = False


@runtime_checkable
class Problem(Protocol):
    """One problem of a scenario.

    It may say beside whether its x is a square image (`image`), whose neighboring coordinates
    matter alike, and whether answers are known to have noise (`noisy`).
    """

    @property
    def index(self) -> int: ...

    @property
    def initial_x(self) -> Float[Tensor, " d"]: ...

    @property
    def lower(self) -> Bound: ...

    @property
    def upper(self) -> Bound: ...

    @property
    def asks_clients(self) -> bool:
        """Whether F is known only by asking every client for its value: one query each, counted."""
        ...

    def report(self, x: Float[Tensor, " d"], values: Float[Tensor, " n"] | None) -> Report:
        """Judge x; `values` are the clients' answers if they were asked."""
        ...


@runtime_checkable
class JudgesInPlace(Protocol):
    """A problem that judges an x which is a module's parameters by the module."""

    def report_in_place(self, bring_: Bring, values: Float[Tensor, " n"] | None) -> Report:
        """Judge the x that `bring_` moves a module to, which was made as the clients' were.

        values: the clients' answers if they were asked.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenProblem:
    """A problem of which nothing is known but its clients: F is the mean of their answers.

    noisy: whether their answers are known to have noise, so that those by which an x was chosen are
    no fair judges of it. measure: metrics of x, by name.

    Raises ConfigError for a start that is no vector of finite numbers.
    """

    initial_x: Float[Tensor, " d"]
    lower: Bound = -float("inf")
    upper: Bound = float("inf")
    index: int = 0
    asks_clients: bool = True
    noisy: bool = False
    measure: Callable[[Float[Tensor, " d"]], Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        start = check_start(self.initial_x, self.lower, self.upper)
        object.__setattr__(self, "initial_x", start)

    def report(self, x: Float[Tensor, " d"], values: Float[Tensor, " n"] | None) -> Report:
        return Report(_mean(values), {} if self.measure is None else self.measure(x))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedProblem:
    """A problem whose x is where the clients have it; F is the mean of their answers.

    measure: metrics of the x that a module is moved to, by name. module: one that is at the start.
    """

    dim: int
    module: nn.Module | None = None
    measure: Callable[[Bring], Mapping[str, float]] | None = None
    lower: Bound = -float("inf")
    upper: Bound = float("inf")
    index: int = 0
    asks_clients: bool = True

    @property
    def initial_x(self) -> Float[Tensor, " d"]:
        """A vector without numbers."""
        return torch.empty(self.dim, device="meta")

    def report(self, x: Float[Tensor, " d"], values: Float[Tensor, " n"] | None) -> Report:
        return Report(_mean(values))

    def report_in_place(self, bring_: Bring, values: Float[Tensor, " n"] | None) -> Report:
        return Report(_mean(values), {} if self.measure is None else self.measure(bring_))


def _mean(values: Float[Tensor, " n"] | None) -> float | None:
    return None if values is None else float(values.double().mean())
