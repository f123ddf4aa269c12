"""Your own objectives: a function client id -> objective, from Python or from a file.

F is the mean of the clients' values; it is known only by asking them, one query each, counted. The
start is `initial_x` of client 0's objective where that has one (a module has: its parameters), or
the middle of the box, or 0 where the box is unbounded.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fedzo.config import check_types, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.failure import failure_of
from fedzo.objectives.box import Bound, check_box, check_start, is_bounded, same_box
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.modules import ModuleObjective
from fedzo.objectives.objective import Objective
from fedzo.objectives.problem import OpenProblem, PlacedProblem, Problem
from fedzo.origin import place_of_code
from fedzo.user_code import absolute_reference, load_object
from scenarios.problems.one_problem import OneProblem
from scenarios.problems.own_metrics import MeasureX, OwnMetrics, load_metrics

MakeObjective = Callable[[int], Objective]
Start = Tensor | NDArray[Any] | Sequence[float]
"""What a start may be given as; see fedzo.objectives.box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomConfig:
    """Settings: objective is "path/to/file.py:function" or "package.module:function".

    The function gets a client id and returns an objective; an objective is that of all clients.
    metrics: a function of x [d], or of a module where objectives are modules, that returns a dict
    of names and numbers; they stand in the history beside F, and cost no query.
    """

    objective: str = ""
    metrics: str = ""
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        require_nonnegative("noise_std", self.noise_std)


class CustomScenario(OneProblem):
    """The scenario `custom`: objectives are made once for each client, when it is first asked."""

    def __init__(
        self,
        config: CustomConfig,
        *,
        num_clients: int,
        seed: int,
        make_objective: MakeObjective | None = None,
        initial_x: Start | None = None,
        metrics: MeasureX | None = None,
    ) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        self._reference = "" if make_objective else absolute_reference(config.objective)
        self._make = make_objective or load_function(config.objective)
        self._objectives: dict[int, Objective] = {}
        self._initial_x = initial_x
        self._metrics = metrics or (load_metrics(config.metrics) if config.metrics else None)

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was made and loaded behind: another process makes and loads its own."""
        make = None if self._reference else self._make
        return {**self.__dict__, "_objectives": {}, "_make": make, "_metrics": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._reference:
            self._make = load_function(self._reference)

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        self._objective(0)
        return cohort_of([self._objective(client) for client in client_ids])

    def problem(self, index: int) -> Problem:
        first = self._objective(0)
        start = self._initial_x
        if start is None:
            start = getattr(first, "initial_x", None)
        if start is None:
            start = _middle(first.dim, first.lower, first.upper)
        start = check_start(start, -math.inf, math.inf)
        if len(start) != first.dim:
            raise ConfigError(
                f"initial_x has shape {tuple(start.shape)}, the objectives have dim {first.dim}"
            )
        return OpenProblem(
            initial_x=start,
            lower=first.lower,
            upper=first.upper,
            noisy=self.noise_std > 0,
            measure=None if self._metrics is None else OwnMetrics(self._metrics, first).at,
        )

    def placed(self) -> PlacedProblem:
        """Return the problem of moving modules where they are, which starts there.

        Raises ConfigError for objectives without a module, in a box, and with another start.
        """
        first = self._objective(0)
        if not isinstance(first, ModuleObjective):
            raise ConfigError(
                f"client 0 has a {type(first).__name__}, and what is moved in place is a module;"
                " return a ModuleObjective, or use the strategy seedzo"
            )
        if is_bounded(first.lower, first.upper):
            raise ConfigError("a module in place is kept in no box; leave out lower and upper")
        if self._initial_x is not None:
            raise ConfigError(
                "a module in place starts at its own parameters; leave initial_x out and load it"
                " into the module"
            )
        own = None if self._metrics is None else OwnMetrics(self._metrics, first)
        measure = None if own is None else own.in_place
        return PlacedProblem(dim=first.dim, module=first.module, measure=measure)

    def _objective(self, client: int) -> Objective:
        if client not in self._objectives:
            self._objectives[client] = self._checked(client)
        return self._objectives[client]

    def _checked(self, client: int) -> Objective:
        """Make a client's objective; raises ConfigError when it cannot take part."""
        try:
            objective = self._make(client)
        except ConfigError as error:
            raise ConfigError(f"client {client}: {error}") from error
        except BaseException as error:  # the user's code may raise anything
            raise ConfigError(
                f"the function raised {failure_of(error)}, for client {client}; it must"
                " take a client id and return an objective"
            ) from error
        if not isinstance(objective, Objective):
            raise ConfigError(
                f"the function returned {objective!r:.60} for client {client}, which has no dim,"
                " lower, upper and value; return for example"
                " fedzo.objectives.objective.CallableObjective(function=..., dim=...)"
                f"{f' ({place})' if (place := place_of_code(self._make)) else ''}"
            )
        check_box(objective.dim, objective.lower, objective.upper)
        first = self._objectives.get(0, objective)
        if objective.dim != first.dim:
            raise ConfigError(
                f"client {client} has an objective of dim {objective.dim}, client 0 of {first.dim};"
                " all clients must share one dim"
            )
        if not same_box(objective, first):
            own, other = (f"[{each.lower}, {each.upper}]" for each in (objective, first))
            raise ConfigError(
                f"client {client} has an objective of the box {own} and client 0 of {other}; all"
                " clients must share one box"
            )
        return objective


def load_function(reference: str) -> MakeObjective:
    """Load "file.py:function" or "module:function"; raises ConfigError when there is none."""
    function = load_object(reference, what="scenario.objective")
    if isinstance(function, Objective) and not isinstance(function, type):
        return lambda _client: function
    if not callable(function):
        raise ConfigError(
            f"scenario.objective={reference!r} is {function!r:.60}; it must be a function of a"
            " client id that returns an objective, or one objective for all clients"
        )
    return function  # type: ignore[no-any-return]


def _middle(dim: int, lower: Bound, upper: Bound) -> Float[Tensor, " d"]:
    """Return the middle of a box; where it is unbounded, the bound there is, or 0."""
    low = torch.as_tensor(lower, dtype=torch.float64).expand(dim)
    high = torch.as_tensor(upper, dtype=torch.float64).expand(dim)
    half = (low + high) / 2
    nearest = torch.where(torch.isfinite(low), low, torch.where(torch.isfinite(high), high, 0.0))
    return torch.where(torch.isfinite(half), half, nearest)
