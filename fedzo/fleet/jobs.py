"""What clients have done in an exchange, counted: what it takes is priced from that alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedzo.protocol.answers import NO_ANSWER
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.sizes import bytes_each
from fedzo.records.ledger import LedgerEntry, of_each, shortest, spanned

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Jobs:
    """Rows of clients [n]: bytes down and up, and queries, gradients and examples of each.

    silent: who was never heard of.
    """

    clients: NDArray[np.int64]
    down: Numbers
    up: Numbers
    queries: Numbers
    gradients: Numbers
    examples: Numbers
    silent: NDArray[np.bool_]


def jobs_of(exchange: Exchange, replies: Replies) -> Jobs:
    """Return what the clients of an exchange have done, in its order; failures have worked too."""
    ids = list(exchange.client_ids)
    down, up = bytes_each(exchange, replies)
    return Jobs(
        clients=np.asarray(ids, dtype=np.int64),
        down=np.asarray(down, dtype=np.float64),
        up=np.asarray(up, dtype=np.float64),
        queries=_counted(replies, "queries", ids),
        gradients=_counted(replies, "gradients", ids),
        examples=_counted(replies, "examples", ids),
        silent=np.asarray([replies.failures.get(client) == NO_ANSWER for client in ids], bool),
    )


_COUNTED = ("down", "up", "queries", "gradients", "examples")


def entry_of(jobs: Jobs, exchange_index: int) -> LedgerEntry:
    """Return the line of the ledger about these jobs."""
    span, clients = spanned(jobs.clients.tolist())
    numbers = {name: shortest(getattr(jobs, name).tolist()) for name in _COUNTED}
    silent = tuple(jobs.clients[jobs.silent].tolist())
    return LedgerEntry(
        exchange_index=exchange_index, span=span, clients=clients, silent=silent, **numbers
    )


def jobs_from(entry: LedgerEntry) -> Jobs:
    """Return the jobs of a line of the ledger."""
    ids = entry.client_ids
    numbers = {
        name: np.asarray(of_each(getattr(entry, name), len(ids)), dtype=np.float64)
        for name in _COUNTED
    }
    clients = np.asarray(ids, dtype=np.int64)
    return Jobs(clients=clients, silent=np.isin(clients, entry.silent), **numbers)


def _counted(replies: Replies, name: str, ids: Sequence[int]) -> Numbers:
    of = replies.counts.get(name, {})
    return np.asarray([of.get(client, 0) for client in ids], dtype=np.float64)
