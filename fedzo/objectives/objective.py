"""What a client can ask: the objective, and adapters that make one.

An objective maps points x [..., d] to values [...]; fedzo minimizes. It may be a black box. If its
value is differentiable by torch, first-order clients can use it too; nothing else marks the two.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fedzo.errors import ObjectiveError
from fedzo.objectives.box import Bound, check_box
from fedzo.objectives.modules import (
    ModuleObjective,
    flatten_parameters,
    restore_parameters,
    unflatten_parameters,
)

__all__ = [
    "Bound",
    "CallableObjective",
    "FiniteSum",
    "Maximize",
    "ModuleObjective",
    "Objective",
    "TorchObjective",
    "check_box",
    "flatten_parameters",
    "restore_parameters",
    "unflatten_parameters",
]

NO_NUMBER = (TypeError, ValueError, RuntimeError, OverflowError)
"""What `one_number` raises."""


@runtime_checkable
class Objective(Protocol):
    """A function of `dim` variables inside the box [lower, upper] (numbers, or [d])."""

    @property
    def dim(self) -> int: ...

    @property
    def lower(self) -> Bound: ...

    @property
    def upper(self) -> Bound: ...

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return the objective at each point."""
        ...


@runtime_checkable
class FiniteSum(Objective, Protocol):
    """An objective that is the mean over `num_examples` examples."""

    @property
    def num_examples(self) -> int: ...

    def minibatch(self, indices: Tensor) -> Objective:
        """Return the mean over the examples with these indices [b]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallableObjective:
    """A Python function as an objective.

    `function` gets one point as a float64 array [d] and returns a number; with `batched=True` it
    gets all points [q, d] and returns their values [q]. It never sees fedzo's own memory. Values
    are float64, whatever the type of x.
    """

    function: Callable[[NDArray[np.float64]], Any]
    dim: int
    lower: Bound = -math.inf
    upper: Bound = math.inf
    batched: bool = False

    def __post_init__(self) -> None:
        low, high = check_box(self.dim, self.lower, self.upper)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Call the function; raises ObjectiveError unless it returns one number a point."""
        points = x.detach().cpu().double().reshape(-1, self.dim).numpy().copy()
        answers = self.function(points) if self.batched else self._answers(points)
        try:
            values = np.array([one_number(answer) for answer in answers]).reshape(len(points))
        except NO_NUMBER as error:
            raise ObjectiveError(
                f"the function returned {answers!r:.80} for {len(points)} points of dim {self.dim};"
                " return one real number a point"
            ) from error
        return torch.from_numpy(values).to(x.device).reshape(x.shape[:-1])

    def _answers(self, points: NDArray[np.float64]) -> list[Any]:
        """Ask point after point; an exception says how many were asked, and what they answered."""
        answers: list[Any] = []
        for point in points:
            try:
                answers.append(self.function(point))
            except BaseException as error:
                error.points_asked = len(answers) + 1  # type: ignore[attr-defined]
                with contextlib.suppress(*NO_NUMBER):
                    error.answered = [one_number(each) for each in answers]  # type: ignore[attr-defined]
                raise
        return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchObjective:
    """A torch function of points [..., d] with values [...]; differentiable if the function is.

    It never sees fedzo's own memory.
    """

    function: Callable[[Tensor], Tensor]
    dim: int
    lower: Bound = -math.inf
    upper: Bound = math.inf

    def __post_init__(self) -> None:
        low, high = check_box(self.dim, self.lower, self.upper)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return self.function(x.clone())  # it may work in place


@dataclass(frozen=True, slots=True)
class Maximize:
    """The negative of an objective that someone wants to maximize.

    It can what that objective can: it starts where that starts, and has the same examples.
    """

    objective: Objective

    def __new__(cls, objective: Objective | None = None) -> "Maximize":
        """Return the kind that can what the objective can; without one, to be copied."""
        if hasattr(objective, "record_loss") and hasattr(objective, "record_losses"):
            cls = _MaximizeRecords
        elif hasattr(objective, "minibatch") and hasattr(objective, "num_examples"):
            cls = _MaximizeSum
        return object.__new__(cls)

    @property
    def dim(self) -> int:
        return self.objective.dim

    @property
    def lower(self) -> Bound:
        return self.objective.lower

    @property
    def upper(self) -> Bound:
        return self.objective.upper

    @property
    def initial_x(self) -> Float[Tensor, " d"] | None:
        """Where the objective starts; None where it does not say."""
        return getattr(self.objective, "initial_x", None)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return -self.objective.value(x)


class _MaximizeSum(Maximize):
    """The negative of a mean over examples."""

    __slots__ = ()

    @property
    def num_examples(self) -> int:
        return self._sum.num_examples

    @property
    def targets(self) -> Tensor | None:
        """The examples' labels; None where there are none."""
        return getattr(self.objective, "targets", None)

    @property
    def flipped(self) -> Callable[[], Maximize]:
        """What makes the same with flipped labels; missing where the objective has none."""
        flipped: Callable[[], Objective] = self.objective.flipped  # type: ignore[attr-defined]
        return lambda: Maximize(flipped())

    def minibatch(self, indices: Tensor) -> Objective:
        return Maximize(self._sum.minibatch(indices))

    @property
    def _sum(self) -> FiniteSum:
        return cast(FiniteSum, self.objective)


class _MaximizeRecords(_MaximizeSum):
    """The negative of an objective that can tell the loss of each of its examples."""

    __slots__ = ()

    def record_loss(self, x: Float[Tensor, " d"], index: Tensor) -> Float[Tensor, ""]:
        loss: Tensor = self.objective.record_loss(x, index)  # type: ignore[attr-defined]
        return -loss

    def record_losses(self, x: Float[Tensor, "q d"]) -> Float[Tensor, "q m"]:
        losses: Tensor = self.objective.record_losses(x)  # type: ignore[attr-defined]
        return -losses


def one_number(answer: Any) -> float:
    """Return the number that somebody's function returned; raises one of NO_NUMBER for none."""
    if isinstance(answer, Tensor):
        answer = answer.detach().cpu().double().numpy() if not answer.is_complex() else None
    if np.ma.is_masked(answer):
        return math.nan
    if isinstance(answer, np.ndarray | np.generic):
        answer = answer.item() if answer.dtype.kind in "iufb" else None
    if isinstance(answer, str | bytes):
        raise TypeError("a number was expected, not text")
    return float(answer)
