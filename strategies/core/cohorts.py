"""Who is asked in a round: a sample of the clients, from a generator of the strategy's."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from strategies.core.abilities import can
from strategies.core.method import RoundMethod


@runtime_checkable
class SizesCohort(Protocol):
    """A state that may want another number of clients than participation says."""

    @property
    def cohort_size(self) -> int:
        """How many the next round should ask; 0 leaves it to participation."""
        ...


def sample_cohort(
    method: RoundMethod[Any],
    state: object,
    num_clients: int,
    *,
    seed: int,
    problem: int,
    round_index: int,
) -> Sequence[int]:
    """Return the clients of a round, ascending, drawn without replacement."""
    wanted = state.cohort_size if can(state, SizesCohort) else 0
    size = min(num_clients, wanted) or method.rounds.cohort_size(num_clients)
    if size == num_clients:
        return range(num_clients)
    generator = method.cohort_generator(seed, problem, round_index)
    return sorted(generator.choice(num_clients, size, replace=False).tolist())
