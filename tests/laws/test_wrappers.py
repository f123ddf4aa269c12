"""One law over everything that stands in front of an objective: what it can, they can.

Of an objective within: start, dim, box, examples, records, gradient, labels. The value's sign and
place may change, and so do those of all the rest, in the same way.
"""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from fedzo.objectives.cohort import CohortObjective, cohort_gradient, cohort_of
from fedzo.objectives.objective import (
    CallableObjective,
    Maximize,
    ModuleObjective,
    Objective,
    TorchObjective,
)
from fedzo.privacy.clipping import RecordLosses, clipped_sums, record_values
from fedzo.runtime.device import Mover

INPUTS = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(4, 5)
LABELS = torch.tensor([0, 1, 2, 0])
CPU = torch.device("cpu")


def value(x: object) -> float:
    return float((x**2).sum())  # type: ignore[operator]


def module() -> ModuleObjective:
    net = nn.Linear(5, 3).double()
    nn.init.constant_(net.weight, 0.1)
    nn.init.zeros_(net.bias)
    return ModuleObjective(net, nn.functional.cross_entropy, INPUTS, LABELS, -2.0, 2.0)


OBJECTIVES: dict[str, Objective] = {
    "callable": CallableObjective(function=value, dim=18, lower=-1.0, upper=2.0),
    "torch": TorchObjective(function=lambda x: x.square().sum(-1), dim=18, upper=3.0),
    "module": module(),
}
WRAPPERS: dict[str, tuple[Callable[[Objective], Objective], float]] = {
    "maximize": (Maximize, -1.0),
    "maximize twice": (lambda o: Maximize(Maximize(o)), 1.0),
    "moved": (lambda o: Mover(CPU).move(Maximize(o)), -1.0),
    "copied": (lambda o: copy.deepcopy(Maximize(o)), -1.0),
    "minibatch": (
        lambda o: Maximize(o).minibatch(torch.arange(4)) if hasattr(o, "minibatch") else o,  # type: ignore[attr-defined]
        -1.0,
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_wrappers_keep_what_an_objective_can(name: str, wrapper: str) -> None:
    bare = OBJECTIVES[name]
    wrap, sign = WRAPPERS[wrapper]
    if wrapper == "minibatch" and name != "module":
        sign = 1.0
    wrapped = wrap(bare)
    assert isinstance(wrapped, Objective)
    assert (wrapped.dim, wrapped.lower, wrapped.upper) == (bare.dim, bare.lower, bare.upper)
    start, expected = getattr(wrapped, "initial_x", None), getattr(bare, "initial_x", None)
    assert (start is None) == (expected is None)
    assert start is None or torch.equal(start, expected)
    for offer in ("num_examples", "minibatch", "record_loss", "record_losses", "flipped"):
        assert hasattr(wrapped, offer) == hasattr(bare, offer), offer
    assert isinstance(wrapped, RecordLosses) == isinstance(bare, RecordLosses)
    x = torch.linspace(-1, 1, 18, dtype=torch.float64).unsqueeze(0)
    one, other = cohort_of([bare]), cohort_of([wrapped])
    assert torch.equal(other.value(x.unsqueeze(1)), sign * one.value(x.unsqueeze(1)))
    torch.testing.assert_close(
        cohort_gradient(other, x), sign * cohort_gradient(one, x), equal_nan=True
    )
    assert other.failures.keys() == one.failures.keys()
    if name == "module":
        _same_examples(one, other, x, sign)


def _same_examples(
    one: CohortObjective, other: CohortObjective, x: torch.Tensor, sign: float
) -> None:
    assert other.sizes.tolist() == one.sizes.tolist() == [4]  # type: ignore[attr-defined]
    assert torch.equal(other.labels_by_client()[0], LABELS)  # type: ignore[attr-defined]
    rows, point = torch.tensor([[1, 3, -1]]), x.unsqueeze(1)
    parts = [cohort.minibatch(rows) for cohort in (one, other)]  # type: ignore[attr-defined]
    assert torch.equal(parts[1].value(point), sign * parts[0].value(point))
    assert parts[1].sizes.tolist() == [2]
    told = [record_values(cohort, point)[0] for cohort in (one, other)]
    assert torch.equal(told[1], sign * told[0])
    norms = torch.tensor([0.1], dtype=torch.float64)
    sums = [clipped_sums(cohort, x, None, norms).sums for cohort in (one, other)]
    torch.testing.assert_close(sums[1], sign * sums[0], rtol=1e-5, atol=1e-9)
    poisoned = [cohort.flipped().value(point) for cohort in (one, other)]  # type: ignore[attr-defined]
    assert torch.equal(poisoned[1], sign * poisoned[0])
