"""Any objectives as a cohort: asked one client after the other, of whom each fails alone."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.errors import ConfigError, ObjectiveError
from fedzo.failure import failure_of
from fedzo.objectives.asking import Asking, GivenUp, ask_points
from fedzo.objectives.box import Bound, bound_text, same_box
from fedzo.objectives.objective import FiniteSum, Objective

BLACK_BOX = (
    "the objective is a black box: it has no gradient for a first-order client; use a zeroth-order"
    " strategy such as fedzo"
)


@dataclass(frozen=True, slots=True)
class LoopedCohort:
    """Any objectives, asked one client after the other.

    `unasked` counts, for a client that raised, the points of that request which it was not asked;
    `asking` says what else happens then, and who asks.
    """

    objectives: Sequence[Objective]
    failures: dict[int, str] = field(default_factory=dict)
    unasked: dict[int, int] = field(default_factory=dict)
    asking: Asking = field(default_factory=Asking)

    def __post_init__(self) -> None:
        dims = {objective.dim for objective in self.objectives}
        if len(dims) != 1:
            raise ObjectiveError(f"all clients need objectives of one dim, got {sorted(dims)}")
        first = self.objectives[0]
        for objective in self.objectives[1:]:
            if not same_box(first, objective):
                raise ObjectiveError(
                    "all clients need the same box, got bounds"
                    f" {bound_text(first.lower)} to {bound_text(first.upper)} and"
                    f" {bound_text(objective.lower)} to {bound_text(objective.upper)}"
                )

    @property
    def num_clients(self) -> int:
        return len(self.objectives)

    @property
    def dim(self) -> int:
        return self.objectives[0].dim

    @property
    def lower(self) -> Bound:
        return self.objectives[0].lower

    @property
    def upper(self) -> Bound:
        return self.objectives[0].upper

    def value(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]:
        pool = self.asking.pool
        if pool is None or x.requires_grad:
            return torch.stack([self._row(i, row) for i, row in enumerate(x)])
        return torch.stack(list(pool.map(self._row_apart, range(len(x)), x)))

    def told_by(
        self, ask: Callable[[int, Objective], Tensor], queries: int
    ) -> Float[Tensor, "n q"]:
        """Return what a function gets out of each objective by so many queries."""
        asked = (
            functools.partial(ask, i, objective) for i, objective in enumerate(self.objectives)
        )
        return torch.stack([self._apart(i, queries, one) for i, one in enumerate(asked)])

    def _row_apart(self, position: int, points: Float[Tensor, "q d"]) -> Float[Tensor, " q"]:
        """Return a row in a thread, where torch would record gradients again."""
        with torch.no_grad():
            return self._row(position, points)

    def _row(self, position: int, points: Float[Tensor, "q d"]) -> Float[Tensor, " q"]:
        def ask(some: Float[Tensor, "p d"]) -> Float[Tensor, " p"]:
            values = _as_values(self.objectives[position].value(some), len(some))
            if some.requires_grad and not values.requires_grad:
                raise ObjectiveError(BLACK_BOX)
            return values

        if points.requires_grad:
            values = self._apart(position, len(points), lambda: ask(points))
            return values.to(points.device)
        if position in self.failures:
            return torch.full((len(points),), torch.nan, dtype=torch.float64, device=points.device)
        try:
            return ask_points(ask, points, position, self.asking).to(points.device)
        except GivenUp as end:
            self.failures[position], self.unasked[position] = end.reason, end.unasked
        return torch.full((len(points),), torch.nan, dtype=torch.float64, device=points.device)

    def _apart(self, position: int, count: int, ask: Callable[[], Tensor]) -> Float[Tensor, " q"]:
        """Return the answers of one client, NaN where it fails or has failed before."""
        if position not in self.failures:
            try:
                return _as_values(ask(), count)
            except ConfigError:  # the experiment is wrong, not the client
                raise
            except BaseException as error:  # a client's code may raise anything; it fails alone
                self.failures[position] = failure_of(error)
                self.unasked[position] = count - getattr(error, "points_asked", count)
        return torch.full((count,), torch.nan, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class LoopedFiniteSums(LoopedCohort):
    """A looped cohort whose objectives can be asked on minibatches."""

    objectives: Sequence[FiniteSum]

    @property
    def sizes(self) -> Int[Tensor, " n"]:
        return torch.tensor([objective.num_examples for objective in self.objectives])

    def minibatch(self, indices: Int[Tensor, "n b"]) -> LoopedCohort:
        parts = [self._part(i, row) for i, row in enumerate(indices)]
        counted = all(hasattr(part, "num_examples") for part in parts)
        kind = LoopedFiniteSums if counted else LoopedCohort
        return kind(parts, self.failures, self.unasked, self.asking)  # type: ignore[arg-type]

    def labels_by_client(self) -> list[Tensor]:
        """Return the labels of each client's examples; nothing where not all have some."""
        found = [getattr(objective, "targets", None) for objective in self.objectives]
        known = [labels for labels in found if labels is not None]
        return known if len(known) == len(found) else []

    def flipped(self) -> "LoopedFiniteSums":
        """Return the cohort with flipped labels; raises ConfigError where there are none."""
        if not all(hasattr(objective, "flipped") for objective in self.objectives):
            raise ConfigError("byzantine.attack=label_flip needs objectives with labels")
        poisoned = [objective.flipped() for objective in self.objectives]  # type: ignore[attr-defined]
        return type(self)(poisoned, self.failures, self.unasked, self.asking)

    def _part(self, position: int, indices: Int[Tensor, " b"]) -> Objective:
        """Return a minibatch; where the client cannot make one, the whole, which is not asked."""
        objective = self.objectives[position]
        if position not in self.failures:
            try:
                return objective.minibatch(indices[indices >= 0])
            except BaseException as error:  # a client's code may raise anything; it fails alone
                self.failures[position] = failure_of(error)
        return objective


def _as_values(answer: object, count: int) -> Float[Tensor, " q"]:
    """Return what an objective answered in float64; raises ObjectiveError for anything else."""
    try:
        values = torch.as_tensor(answer)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ObjectiveError(
            f"the objective answered {answer!r:.60}; return a tensor with one real number a point"
        ) from error
    if values.is_complex() or values.numel() != count:
        raise ObjectiveError(
            f"the objective answered {str(values.dtype)[6:]} of shape {tuple(values.shape)} for"
            f" {count} points; return one real number a point"
        )
    return values.double().reshape(count)
