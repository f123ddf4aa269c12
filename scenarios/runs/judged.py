"""Whether F of an x is known: a run that diverges ends at an x that nobody can judge.

Between evaluations (`strategy.evaluate_every`) the last F that was known counts; where x was to be
judged and nobody could, there is none.
"""

import math
from collections.abc import Sequence

from fedzo.records.history import RoundRecord


def is_known(
    records: Sequence[RoundRecord],
    every: int,
    ended: int,
    axis: str = "rounds",
    limit: float = math.inf,
) -> bool:
    """Return whether F of every problem is known where x was due to be judged last, up to a limit.

    every: rounds between evaluations; 0 for none but at the ends. ended: how many problems have
    come to their end, where x is judged too.
    """
    last = {record.problem: record for record in records}
    due: dict[int, RoundRecord] = {}
    for record in records:
        at_end = record is last[record.problem] and record.problem < ended
        regular = record.round_index % every == 0 if every else record.round_index == 0
        if (at_end or regular) and record.axis(axis) <= limit:
            due[record.problem] = record
    return all(record.value is not None for record in due.values())


def is_partial(records: Sequence[RoundRecord], axis: str, limit: float = math.inf) -> bool:
    """Return whether the last F until there, of some problem, is the mean of too few clients."""
    judged = {
        record.problem: record
        for record in records
        if record.value is not None and record.axis(axis) <= limit
    }
    return any(record.partial for record in judged.values())
