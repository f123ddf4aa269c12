"""Clipped sums: no record, or no client, weighs more than its clip norm.

    clip(g, C) = g min(1, C / |g|)          over the whole vector of one record (or of one client)

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, algorithm 1. A client answers
(1 / n_p) sum_i clip(g_i, C), one sum over all of its records divided by their number: means of
minibatches averaged would give the records of a short last one a larger weight, and break the
sensitivity that the noise is made for (as the published code of DIFF2 does). For differences g_i is
the change of record i's gradient between two points.

A record whose gradient is not finite counts as zero: if it made its client fail, or the sum NaN, it
would show. What rounding adds is in fedzo.privacy.rounding: no record is ever longer than C.

A cohort that knows a shorter way offers `clipped_sums`, and modules of linear layers have one
(fedzo.privacy.linear); for others, the records' gradients are made by torch.func.vmap(grad), so
many at a time as fit into a bound on memory.
"""

import functools
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.failure import failure_of
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.module_cohort import ModuleCohort
from fedzo.objectives.objective import FiniteSum, ModuleObjective, Objective
from fedzo.objectives.records import mapped
from fedzo.privacy.linear import sum_of_linear
from fedzo.privacy.rounding import Clipped, clip_rows, hold, shrink, weighed

__all__ = [
    "MAX_FLOATS",
    "Clipped",
    "ClipsRecords",
    "RecordLosses",
    "clip_rows",
    "clipped_sums",
    "objectives_of",
    "record_values",
    "shrink",
]

MAX_FLOATS = 1 << 22
"""Floats that records' gradients may take at once: 16 MB, which was fastest here."""


@runtime_checkable
class ClipsRecords(Protocol):
    """A cohort that can sum its records' clipped gradients without forming each of them."""

    def clipped_sums(
        self,
        x: Float[Tensor, "n d"],
        previous: Float[Tensor, "n d"] | None,
        clip_norms: Float[Tensor, " n"],
        max_floats: int,
    ) -> Clipped:
        """Return sums over records of clipped gradients at x, or of their changes."""
        ...


@runtime_checkable
class RecordLosses(Protocol):
    """An objective that can tell the loss of each of its records."""

    def record_losses(self, x: Float[Tensor, "q d"]) -> Float[Tensor, "q m"]:
        """Return the loss of every record at each point."""
        ...

    def record_loss(self, x: Float[Tensor, " d"], index: Tensor) -> Float[Tensor, ""]:
        """Return the loss of one record; differentiable, and fit for torch.func.vmap."""
        ...


def clipped_sums(
    cohort: CohortObjective,
    x: Float[Tensor, "n d"],
    previous: Float[Tensor, "n d"] | None,
    clip_norms: Float[Tensor, " n"],
    *,
    max_floats: int = MAX_FLOATS,
) -> Clipped:
    """Return sums over records of clipped gradients at x, or of their changes since `previous`.

    A client that raises is noted in the cohort's failures, and its row is NaN. Raises ConfigError
    where objectives have no records.
    """
    if isinstance(cohort, ClipsRecords):
        found = cohort.clipped_sums(x, previous, clip_norms, max_floats)
    else:
        found = _looped(cohort, x, previous, clip_norms, max_floats)
    sizes = getattr(cohort, "sizes", None)
    return found if sizes is None else hold(found, clip_norms.double() * sizes.to(x.device))


def _looped(
    cohort: CohortObjective,
    x: Float[Tensor, "n d"],
    previous: Float[Tensor, "n d"] | None,
    clip_norms: Float[Tensor, " n"],
    max_floats: int,
) -> Clipped:
    """Return the sums of one client after the other."""
    rows = []
    for position, objective in enumerate(objectives_of(cohort)):
        before = None if previous is None else previous[position]
        try:
            most = float(clip_norms[position])
            rows.append(_sum_of_one(objective, x[position], before, most, max_floats))
        except BaseException as error:  # a client's code may raise anything; it fails alone
            if isinstance(error, ConfigError):
                raise
            cohort.failures.setdefault(position, failure_of(error))
            rows.append((torch.full_like(x[position], torch.nan), x.new_zeros(())))
    return Clipped(torch.stack([s for s, _ in rows]), torch.stack([c for _, c in rows]))


def objectives_of(cohort: CohortObjective) -> Sequence[Objective]:
    """Return the clients' objectives, of a minibatch those of its records.

    Raises ConfigError where they are not means over records.
    """
    alone = cohort.one_by_one() if isinstance(cohort, ModuleCohort) else cohort
    found: Sequence[Objective] = getattr(alone, "objectives", ())
    if not found or not all(hasattr(one, "minibatch") for one in found):
        raise ConfigError(
            "privacy of records needs objectives over records (examples), such as those of the"
            " scenarios regression and classification; set strategy.unit=client for others"
        )
    return found


def record_values(cohort: CohortObjective, x: Float[Tensor, "n q d"]) -> list[Tensor]:
    """Return the loss of each record of each client at each of its points, [q, m_i]."""
    if hasattr(cohort, "record_values"):
        told: list[Tensor] = cohort.record_values(x)
        return told
    rows = []
    for position, objective in enumerate(objectives_of(cohort)):
        try:
            rows.append(_losses(objective, x[position]))
        except BaseException as error:  # a client's code may raise anything; it fails alone
            cohort.failures.setdefault(position, failure_of(error))
            rows.append(x.new_full((x.shape[1], 1), torch.nan))
    return rows


def _losses(objective: Objective, points: Float[Tensor, "q d"]) -> Float[Tensor, "q m"]:
    if isinstance(objective, RecordLosses):
        return objective.record_losses(points)
    assert isinstance(objective, FiniteSum)
    ones = torch.arange(objective.num_examples, device=points.device).unsqueeze(1)
    return torch.stack([objective.minibatch(index).value(points) for index in ones], dim=1)


def _sum_of_one(
    objective: Objective,
    x: Float[Tensor, " d"],
    previous: Float[Tensor, " d"] | None,
    clip_norm: float,
    max_floats: int,
) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
    """Return the clipped sum of one client, and how many records were shortened."""
    assert isinstance(objective, FiniteSum)
    if isinstance(objective, ModuleObjective):
        found = sum_of_linear(objective, x, previous, clip_norm, max_floats)
        if found is not None:
            return found
    total, shortened = torch.zeros_like(x), x.new_zeros(())
    rows = max(1, max_floats // (len(x) * (1 if previous is None else 2)))
    for index in torch.arange(objective.num_examples, device=x.device).split(rows):
        gradients = _gradients(objective, x, index)
        if previous is not None:
            gradients = gradients - _gradients(objective, previous, index)
        gradients, factors, short = weighed(gradients, clip_norm)
        total += factors @ gradients
        shortened += short.sum()
    return total, shortened


def _gradients(objective: FiniteSum, x: Float[Tensor, " d"], index: Tensor) -> Float[Tensor, "m d"]:
    """Return every record's gradient: in one program where its loss can be mapped, else in turn."""
    if isinstance(objective, RecordLosses):
        gradient = functools.partial(torch.func.grad(objective.record_loss), x)
        return mapped(gradient, index, alone=functools.partial(objective.record_loss, x))
    rows = []
    for one in index.unsqueeze(1):
        point = x.detach().requires_grad_(True)
        value = objective.minibatch(one).value(point)
        if not value.requires_grad:
            raise ConfigError(
                "the objective is a black box: it has no gradient; set client.gradient=zeroth_order"
            )
        rows.append(torch.autograd.grad(value, point)[0])
    return torch.stack(rows)
