"""Who is asked in a round: a sample of the clients, from a generator of the strategy's."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedzo.records.virtual_time import VirtualTime
from fedzo.runtime.engine import HasClock
from strategies.core.abilities import can
from strategies.core.method import RoundMethod

Online = Callable[[Sequence[int]], NDArray[np.bool_]]
"""Which of these clients can be reached now [n]."""


@runtime_checkable
class SizesCohort(Protocol):
    """A state that may want another number of clients than participation says."""

    @property
    def cohort_size(self) -> int:
        """How many the next round should ask; 0 leaves it to participation."""
        ...


def wanted_size(method: RoundMethod[Any], state: object, num_clients: int) -> int:
    """Return how many answers a round wants."""
    wanted = state.cohort_size if can(state, SizesCohort) else 0
    return min(num_clients, wanted) or method.rounds.cohort_size(num_clients)


def sample_cohort(
    method: RoundMethod[Any],
    state: object,
    num_clients: int,
    *,
    seed: int,
    problem: int,
    round_index: int,
    online: Online | None = None,
) -> Sequence[int]:
    """Return the clients of a round, ascending, drawn without replacement.

    More than a round wants, by over_selection; online: of those that can be reached, where somebody
    knows, and fewer where a hundred draws for each find no more; one in any case.
    """
    wanted = wanted_size(method, state, num_clients)
    size = min(num_clients, math.ceil(method.rounds.over_selection * wanted))
    if size == num_clients:
        everybody = range(num_clients)
        return everybody if online is None else _reached(everybody, online) or everybody[:1]
    generator = method.cohort_generator(seed, problem, round_index)
    drawn: list[int] = generator.choice(num_clients, size, replace=False).tolist()
    if online is None:
        return sorted(drawn)
    found = dict.fromkeys(_reached(drawn, online))
    for _ in range(_DRAWS):
        if len(found) >= size:
            break
        more: list[int] = generator.integers(num_clients, size=size).tolist()
        found.update(dict.fromkeys(_reached(more, online)))
    return sorted(list(found)[:size]) or drawn[:1]


_DRAWS = 100


def who_is_online(engine: object, clock: VirtualTime | None) -> Online | None:
    """Return what says who can be reached now, where a clock knows."""
    if clock is None or not can(engine, HasClock):
        return None
    return lambda ids: engine.online(ids, clock.seconds)


def _reached(ids: Sequence[int], online: Online) -> Sequence[int]:
    there = online(ids)
    return ids if there.all() else [c for c, here in zip(ids, there, strict=True) if here]
