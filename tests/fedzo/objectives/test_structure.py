"""What is found about modules is kept for their structure, and for nothing else."""

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedzo.objectives import same_bits, stacked_modules
from fedzo.objectives.cohort import cohort_of
from fedzo.objectives.modules import ModuleObjective
from fedzo.objectives.same_bits import SameBits
from fedzo.objectives.stacked_modules import program_of
from fedzo.objectives.structure import Same, module_key, value_key


class Thing:
    """What can be referred to weakly."""


class Net(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor] = torch.relu, width: int = 6) -> None:
        super().__init__()
        self.act, self.layer = act, nn.Linear(4, width)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.act(self.layer(inputs))


def test_an_object_is_the_same_as_itself_while_it_lives() -> None:
    one, other = Thing(), Thing()
    key = Same(one)
    assert key == Same(one)
    assert hash(key) == hash(Same(one))
    assert key != Same(other)
    assert key != one
    del one
    gc.collect()
    again = [Thing() for _ in range(1000)]  # one of them may lie where it lay
    assert all(key != Same(thing) for thing in again)


def test_a_key_keeps_nothing_alive_that_can_be_let_go() -> None:
    gone = []
    thing = Thing()
    import weakref

    weakref.finalize(thing, gone.append, 1)
    key = value_key([thing, 1.0])
    assert key == value_key([thing, 1.0])
    del thing
    gc.collect()
    assert gone == [1]
    number = object()
    assert Same(number) == Same(number), "what cannot be referred to weakly is kept"


def test_what_changes_a_module_changes_its_key() -> None:
    net, before = Net(), module_key(Net())
    assert module_key(net) == before
    net.act = torch.tanh
    assert module_key(net) != before
    assert module_key(Net(width=7)) != before
    net.act = torch.relu
    assert module_key(net) == before


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[SameBits]:
    """Return the looks at operations that are taken, as they are taken."""
    taken: list[SameBits] = []

    def look() -> SameBits:
        taken.append(SameBits())
        return taken[-1]

    monkeypatch.setattr(stacked_modules, "SameBits", look)
    monkeypatch.setattr(same_bits, "multiplies_row_by_row", lambda *_: True)  # on any processor
    program_of.cache_clear()
    return taken


def clients(act: Callable[[Tensor], Tensor] = torch.relu) -> list[ModuleObjective]:
    drawn = torch.Generator().manual_seed(0)
    return [
        ModuleObjective(
            Net(act),
            nn.CrossEntropyLoss(),
            torch.randn(5, 4, generator=drawn),
            torch.randint(0, 6, (5,), generator=drawn),
        )
        for _ in range(3)
    ]


def test_operations_are_looked_at_once_for_a_structure(trials: list[SameBits]) -> None:
    x = torch.linspace(-1, 1, 90).reshape(3, 1, 30)
    first = cohort_of(clients()).value(x)
    for _ in range(4):  # exchanges, also with other clients of the same kind
        assert torch.equal(cohort_of(clients()).value(x), first)
    assert len(trials) == 1
    cohort_of(clients()).value(x.clone().requires_grad_(True))
    assert len(trials) == 2, "with gradients other operations are done"


def test_a_module_that_was_changed_is_looked_at_again(trials: list[SameBits]) -> None:
    x = torch.linspace(-1, 1, 90).reshape(3, 1, 30)
    own = clients()
    relu = cohort_of(own).value(x)
    for each in own:
        each.module.act = torch.tanh
    tanh = cohort_of(own).value(x)
    assert len(trials) == 2
    assert trials[1].filled
    assert not trials[0].filled
    assert not torch.equal(relu, tanh)
    alone = torch.cat([cohort_of([one]).value(x[[i]]) for i, one in enumerate(own)])
    assert torch.equal(alone, tanh)
