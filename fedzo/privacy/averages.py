"""Whether the losses of a client's records average to its objective, asked before any is released.

    |mean_i l_i(x) - f(x)| <= t (mean_i |l_i(x)| + |f(x)|) / 2        at x, and at a point beside it

What is clipped and released are gradients (or slopes) of l_i, and x follows their mean: where that
is not f, as with class weights, sums, ignored labels, or modules and losses that compare records
with each other, x minimizes something else. The second point is there because wrong losses may
agree where a network starts, if all of its outputs are equal. t = 1e-3, or 8 units in the last
place of a shorter type.

It is asked on all records, or 4,096 of them evenly spread, and tells nothing but whether it holds:
the loss is wrong whatever the records are, and the run is refused before anything was released.
Records that are not finite count as zero in private sums; so the others are compared among
themselves, unless f is finite with them, as with labels that are ignored.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.looped_cohort import LoopedCohort
from fedzo.objectives.objective import FiniteSum, Objective
from fedzo.privacy.clipping import RecordLosses
from fedzo.randomness import stream

NOT_AVERAGED = (
    "the losses of single records do not average to the objective, so private sums over records"
    " are not its gradient; likely reasons are class weights, reduction='sum', ignore_index, or a"
    " module or a loss that compares records with each other; give a loss that is a plain mean over"
    " records, such as (weight[y] * cross_entropy(o, y, reduction='none')).mean(), or set"
    " strategy.unit=client"
)
QUERIES = 4
"""Of each client: the objective and its records' losses, at two points."""
_MOST, _TOLERANCE, _TOGETHER, _PAIRS = 4096, 1e-3, 512, 8


def queries_to_compare(cohort: CohortObjective) -> int:
    """Return the queries that `require_averages` takes of each client.

    No query where a cohort is one program, which promises means over records.
    """
    return QUERIES if isinstance(getattr(cohort, "inner", cohort), LoopedCohort) else 0


def require_averages(cohort: CohortObjective, points: Float[Tensor, "n q d"]) -> None:
    """Raise ConfigError where records' losses do not average to a client's objective.

    Clients that raise are left to the round, in which they fail alone.
    """
    inner: Any = getattr(cohort, "inner", cohort)
    asked = points.to(getattr(cohort, "device", points.device))
    for position, objective in enumerate(inner.objectives):
        if position in cohort.failures or not isinstance(objective, FiniteSum):
            continue
        try:
            with torch.no_grad():
                apart = max(_difference(objective, point) for point in asked[position])
        except Exception:  # a client's code may raise anything; it will again, in the round
            continue
        if apart > 0:
            said = "some are not finite" if apart == math.inf else f"they are {apart:.0%} apart"
            raise ConfigError(f"{NOT_AVERAGED} ({said})")


def points_beside(x: Float[Tensor, "n d"]) -> Float[Tensor, "n 2 d"]:
    """Return each point, and one beside it, the same whatever the run."""
    step = torch.from_numpy(stream(0, "record averages").standard_normal(x.shape[1])).to(x)
    size = x.square().mean(dim=1, keepdim=True).sqrt().clamp_min(0.1)
    return torch.stack([x, x + size * step], dim=1)


def _difference(objective: FiniteSum, point: Float[Tensor, " d"]) -> float:
    """Return how far the mean of records' losses at a point is from the objective there."""
    count = objective.num_examples
    taken = min(count, _MOST)
    index = torch.arange(taken, device=point.device) * count // max(1, taken)

    def value(part: Int[Tensor, " k"] | None) -> Float[Tensor, ""]:
        if part is None and count <= _MOST:
            return _value(objective, point)
        return _value(objective.minibatch(index if part is None else index[part]), point)

    return difference(_losses(objective, point, index), value)


def difference(
    each: Float[Tensor, " m"],
    value: Callable[[Int[Tensor, " k"] | None], Float[Tensor, ""]],
) -> float:
    """Return how far the mean of records' losses is from their objective, 0 within rounding.

    In units of their size; infinite where losses are not finite and the objective is. value: of the
    objective on some of the records, or on all, in the type in which it is computed.
    """
    whole, finite = value(None), each.isfinite()
    rounding = max(_TOLERANCE, 8 * torch.finfo(whole.dtype).eps)
    each, whole = each.double(), whole.double()
    if not bool(finite.any()):
        return 0.0
    if not bool(finite.all()):
        if bool(whole.isfinite()) or _hides(value, finite):
            return math.inf
        whole, each = value(finite.nonzero().flatten()).double(), each[finite]
    apart, size = (each.mean() - whole).abs(), (each.abs().mean() + whole.abs()) / 2
    return float(apart / size) if bool(apart > rounding * size) else 0.0


def _hides(
    value: Callable[[Int[Tensor, " k"] | None], Float[Tensor, ""]], finite: Bool[Tensor, " m"]
) -> bool:
    """Return whether a record without a finite loss is left out beside one that has one."""
    good = finite.nonzero().flatten()[:1]
    pairs = [torch.cat([good, bad]) for bad in (~finite).nonzero()[:_PAIRS]]
    return any(bool(value(pair).isfinite()) for pair in pairs)


def _losses(
    objective: FiniteSum, point: Float[Tensor, " d"], index: Int[Tensor, " m"]
) -> Float[Tensor, " m"]:
    if isinstance(objective, RecordLosses):
        each = torch.func.vmap(objective.record_loss, in_dims=(None, 0), chunk_size=_TOGETHER)
        mapped: Tensor = each(point, index)
        return mapped.double()
    alone = [_value(objective.minibatch(one), point) for one in index.unsqueeze(1)]
    return torch.stack(alone).double()


def _value(objective: Objective, point: Float[Tensor, " d"]) -> Float[Tensor, ""]:
    return objective.value(point.unsqueeze(0)).reshape(())
