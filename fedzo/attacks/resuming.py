"""Victims that remember: they go on where an earlier run was, and can be asked anew.

An attack that goes on takes old answers from its journal (fedzo.attacks.victims.memory). A victim
that counts, keeps what it was asked, or draws random numbers would not know of them, and behave
like one that was never asked; so it is told, and goes on as if there had been no interruption.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.victims.victim import Answers, Victim, ask_checked


@runtime_checkable
class Resuming(Protocol):
    """A victim that goes on after an interruption."""

    def recall(self, count: int) -> None:
        """Take note, before all else, that so many images were answered in an earlier run."""
        ...

    def replay(self, images: Float[Tensor, "b c h w"]) -> None:
        """Take note that these, answered in an earlier run, would be asked now."""
        ...


@runtime_checkable
class Again(Protocol):
    """A victim that remembers answers, and can be asked the same image anew."""

    def again(self, images: Float[Tensor, "b c h w"], number: int) -> Answers:
        """Return new answers; `number` tells one time from the other."""
        ...


def recall(victim: Victim, count: int) -> None:
    """Tell a victim how many images were answered in an earlier run."""
    if isinstance(victim, Resuming):
        victim.recall(count)


def replay(victim: Victim, images: Float[Tensor, "b c h w"]) -> None:
    """Tell a victim what it would be asked now, had it not been answered in an earlier run."""
    if isinstance(victim, Resuming):
        victim.replay(images)


def at_once(victim: Victim) -> int | None:
    """Return how many images a victim is asked in one request; None where there is no limit."""
    batch = getattr(victim, "batch", None)
    return batch if isinstance(batch, int) and batch >= 1 else None


def ask_again(victim: Victim, images: Float[Tensor, "b c h w"], number: int) -> Answers:
    """Ask images that were asked before, whatever is remembered."""
    return (
        victim.again(images, number) if isinstance(victim, Again) else ask_checked(victim, images)
    )
