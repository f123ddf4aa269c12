"""What a state can do is what isinstance says, whatever it is made of."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from strategies.core.abilities import can
from strategies.core.cohorts import SizesCohort
from strategies.core.rounds import IsInPlace, KnowsModels, Reports

ABILITIES = (IsInPlace, KnowsModels, Reports, SizesCohort)


@dataclass(frozen=True, slots=True)
class Slotted:
    report: dict[str, float]
    clients: torch.Tensor


@dataclass(frozen=True)
class Open:
    cohort_size: int


class Plain:
    """Has what it says, and sometimes more."""

    def __init__(self, **more: Any) -> None:
        self.__dict__.update(more)


class Asked:
    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name == "report":
            return {}
        raise AttributeError(name)


class Refuses:
    log = torch.zeros(1)
    judge = None


@pytest.mark.parametrize("ability", ABILITIES)
@pytest.mark.parametrize(
    "state",
    [
        Slotted({}, torch.zeros(1)),
        Open(3),
        Plain(),
        Plain(report={}),
        Plain(clients=1, models=2),
        Asked(),
        Refuses(),
        None,
    ],
)
def test_it_is_what_isinstance_says(state: Any, ability: Any) -> None:
    assert can(state, ability) == isinstance(state, ability)


def test_every_ability_is_had_by_somebody_here() -> None:
    assert can(Slotted({}, torch.zeros(1)), Reports)
    assert can(Open(3), SizesCohort)
    assert can(Plain(clients=1, models=2), KnowsModels)
    assert not can(Plain(), KnowsModels)
