"""Whether a budget covers a first step: below it an attacker asks and asks, and never moves."""

import warnings
from typing import Protocol, runtime_checkable

from fedzo.attacks.attacker import Attacker, Running, Task, start
from fedzo.errors import FedzoWarning


@runtime_checkable
class Stepping(Protocol):
    """An attacker that knows what its first step takes."""

    def first_step(self, task: Task) -> int:
        """Return the fewest queries after which it has moved, and asked about where it is."""
        ...


def first_step(attacker: Attacker, task: Task) -> int:
    """Return the fewest queries with which an attacker can move; 1 where it does not say."""
    return attacker.first_step(task) if isinstance(attacker, Stepping) else 1


def shortfall(attacker: Attacker, task: Task) -> str:
    """Return a sentence where the budget of a task is below one step, else nothing."""
    needed = first_step(attacker, task)
    if needed <= task.query_budget:
        return ""
    return (
        f"query_budget covers {task.query_budget} proposals, and the first step of this attacker"
        f" takes {needed}, so it could never move; raise it, ask fewer directions, or search in"
        " fewer coordinates"
    )


def begin(attacker: Attacker, task: Task) -> Running:
    """Begin an attack, and say so where its budget is below one step."""
    sentence = shortfall(attacker, task)
    if sentence:
        warnings.warn(sentence, FedzoWarning, stacklevel=2)
    return start(attacker, task)
