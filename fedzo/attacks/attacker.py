"""The face that all attackers share: they ask for perturbations, and are told how these did.

    running = start(attacker, task)
    while not running.done:
        running.tell(judge(running.asked))             # perturbations [q, d] -> Reply

An attacker is a config with one method, `search`, a generator that yields perturbations [q, d] and
receives a Reply; it need not stop when it succeeds, nor count: the loop that runs it does. What is
random comes from the task's generator alone. Whoever writes an attacker of his own writes such a
method. Perturbations of attackers that see scores stay inside the task's region; those of attackers
that see labels may leave the ball on the way, never the range of valid pixels.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.region import Region


@dataclass(frozen=True, slots=True)
class Reply:
    """Losses of what was asked, NaN where the victim refused, and what has reached the goal.

    reached does not say that the perturbation is small enough.
    """

    losses: Float[Tensor, " q"]
    reached: Bool[Tensor, " q"]


@dataclass(frozen=True, slots=True)
class Task:
    """What an attacker knows: where perturbations may be, and how many he may ask for.

    coordinates: those that attackers of few dimensions search in. starts: perturbations, of any
    size, that may reach the goal; for attackers that find none of their own.
    """

    region: Region
    coordinates: Coordinates
    query_budget: int
    generator: np.random.Generator
    starts: Float[Tensor, "s d"] | None = None


Search = Generator[Float[Tensor, "q d"], Reply, None]


@runtime_checkable
class Attacker(Protocol):
    """How perturbations are looked for."""

    def search(self, task: Task) -> Search:
        """Yield perturbations to ask, and receive how they did."""
        ...


class Running:
    """An attack that has begun: `asked` is to be answered by `tell`."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self.asked: Float[Tensor, "q d"] = next(search)
        self.done = False

    def tell(self, reply: Reply) -> None:
        """Say how the perturbations did; `asked` then holds new ones, unless all are done."""
        try:
            self.asked = self._search.send(reply)
        except StopIteration:
            self.done = True


def start(attacker: Attacker, task: Task) -> Running:
    """Begin an attack."""
    return Running(attacker.search(task))


def lowest(losses: Float[Tensor, " q"]) -> int:
    """Return the place of the lowest loss; refused ones are last."""
    return int(losses.nan_to_num(torch.inf).argmin())
