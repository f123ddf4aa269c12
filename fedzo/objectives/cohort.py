"""The objectives of a cohort as one: points [n, q, d] to values [n, q].

A scenario whose clients share a formula evaluates all of them in one tensor program; `ModuleCohort`
does so for equal modules. For any other collection `LoopedCohort` asks one client after the other,
and keeps the failure of one client from touching the rest.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.box import Bound
from fedzo.objectives.looped_cohort import BLACK_BOX, LoopedCohort, LoopedFiniteSums
from fedzo.objectives.module_cohort import ModuleCohort
from fedzo.objectives.modules import ModuleObjective
from fedzo.objectives.objective import Objective

NOT_TWICE = (
    "the objective cannot be differentiated twice, which adahessian does; set client.optimizer to"
    " another"
)


@runtime_checkable
class CohortObjective(Protocol):
    """Objectives of n clients on the same box; row i of x is asked of client i.

    `failures` maps the position of a client that raised to the reason; its values are NaN.
    """

    @property
    def num_clients(self) -> int: ...

    @property
    def dim(self) -> int: ...

    @property
    def lower(self) -> Bound: ...

    @property
    def upper(self) -> Bound: ...

    @property
    def failures(self) -> dict[int, str]: ...

    def value(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]: ...


@runtime_checkable
class FiniteSumCohort(CohortObjective, Protocol):
    """A cohort in which every objective is a mean over examples; `sizes` counts them."""

    @property
    def sizes(self) -> Int[Tensor, " n"]: ...

    def minibatch(self, indices: Int[Tensor, "n b"]) -> CohortObjective:
        """Return the means over the examples with these indices, counted from 0 in each client.

        A client with fewer than b examples fills up with -1, which stands for none.
        """
        ...


def cohort_of(objectives: Sequence[Objective]) -> CohortObjective:
    """Make one cohort of separate objectives, with minibatches if all of them have examples."""
    if all(type(objective) is ModuleObjective for objective in objectives):
        return ModuleCohort(objectives)  # type: ignore[arg-type]
    sums = [o for o in objectives if hasattr(o, "minibatch") and hasattr(o, "num_examples")]
    if len(sums) == len(objectives):
        return LoopedFiniteSums(sums)  # type: ignore[arg-type]
    return LoopedCohort(objectives)


def flip_labels(cohort: CohortObjective) -> CohortObjective:
    """Return the same clients with every label y turned into C - 1 - y: a poisoned data set.

    Raises ConfigError where the objectives have no labels.
    """
    if hasattr(cohort, "flipped"):
        poisoned: CohortObjective = cohort.flipped()
        return poisoned
    raise ConfigError(
        f"byzantine.attack=label_flip needs objectives with labels, {type(cohort).__name__} has"
        " none; use the scenario classification or another attack"
    )


def cohort_gradient(cohort: CohortObjective, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Differentiate each client's objective at its own point by autograd.

    Raises ObjectiveError when the values do not depend on x by torch operations; in a looped
    cohort the clients of which that is true fail alone. Rows of failed clients are NaN.
    """
    if torch.compiler.is_compiling():
        traced: Tensor = torch.func.grad(lambda z: cohort.value(z.unsqueeze(1)).sum())(x)
        return traced
    x = x.detach().requires_grad_(True)
    total = cohort.value(x.unsqueeze(1)).sum()
    if not total.requires_grad:
        if len(cohort.failures) < cohort.num_clients:
            raise ObjectiveError(BLACK_BOX)
        return torch.full_like(x, torch.nan)
    (gradient,) = torch.autograd.grad(total, x)
    if cohort.failures:
        gradient[list(cohort.failures)] = torch.nan
    return gradient


def gradient_and_product(
    cohort: CohortObjective, x: Float[Tensor, "n d"], along: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Return gradients, and each Hessian times a vector, 0 where the gradient does not change.

    Raises ObjectiveError as cohort_gradient, and for what cannot be differentiated twice.
    """
    x = x.detach().requires_grad_(True)
    value = cohort.value_in_graph if isinstance(cohort, ModuleCohort) else cohort.value
    total = value(x.unsqueeze(1)).sum()
    if not total.requires_grad:
        if len(cohort.failures) < cohort.num_clients:
            raise ObjectiveError(BLACK_BOX)
        nothing = torch.full_like(x, torch.nan)
        return nothing, nothing
    (gradient,) = torch.autograd.grad(total, x, create_graph=True)
    product = torch.zeros_like(x)
    if gradient.requires_grad:
        try:
            (found,) = torch.autograd.grad((gradient * along).sum(), x, allow_unused=True)
        except RuntimeError as error:
            raise ObjectiveError(f"{NOT_TWICE} ({error})") from error
        product = product if found is None else found
    gradient = gradient.detach()
    well = [i for i in range(cohort.num_clients) if i not in cohort.failures]
    if well and not product[well].any():
        elsewhere = cohort_gradient(cohort, x.detach() + along)
        if not torch.equal(elsewhere[well], gradient[well]):
            raise ObjectiveError(NOT_TWICE)
    if cohort.failures:
        gradient[list(cohort.failures)] = product[list(cohort.failures)] = torch.nan
    return gradient, product
