"""What a client of DIFF2 says: the mean of its records' clipped gradients, or of their changes.

    query.clipped:  x            -> fresh  = (1 / n_p) sum_i clip(g_i(x), C)                [n, d]
                    x, previous  -> change = (1 / n_p) sum_i clip(g_i(x) - g_i(previous), C') [n, d]
    query.records:  how many records the client has                                         [n, 1]

Murata & Suzuki, "DIFF2: Differential Private Optimization via Gradient Differences for Nonconvex
Distributed Learning", ICML 2023, algorithms 1 and 2. One sum over all records, divided by their
number: see fedzo.privacy.clipping. With `unit=client` the mean of unclipped gradients is clipped
instead, as one vector. With `gradient=zeroth_order` records say slopes:

    s_ij = slope of l(.; record i) at x along u_j, times sqrt(d / m);   clip (s_i1 .. s_im)  [n, m]

u_1 .. u_m are public orthonormal rows, the same for all clients, and at both points; then E|s_i|^2
is |g_i|^2, so the same clip norms suit. A client that was asked for noise adds its share (see
fedzo.privacy.gaussian). Cost: one gradient of all records, or two; m + 1 queries, or twice that.
Shortened records are counted only for a simulation: that count is not private.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from clients.core.local import require_resolution
from fedzo.estimation.bases import Blocks
from fedzo.estimation.schemes import Differences
from fedzo.objectives.oracle import Oracle
from fedzo.privacy.averages import queries_to_compare
from fedzo.privacy.clipping import Clipped, clip_rows
from fedzo.privacy.counted import clipped_gradients, compare_records, record_values
from fedzo.privacy.gaussian import gaussian_noise
from fedzo.protocol import questions
from fedzo.protocol.question import no_numbers
from fedzo.protocol.questions.private import ClippedMeans, RecordsTold
from fedzo.runtime.local import Answered, Clients


def answer_records(_question: questions.Records, clients: Clients) -> Answered:
    """Return how many records each client has, 1 where they do not count them."""
    sizes = getattr(clients.cohort, "sizes", torch.ones(len(clients)))
    return RecordsTold(records=sizes.double().unsqueeze(1)), clients.states


def answer_clipped(question: questions.Clipped, clients: Clients) -> Answered:
    """Return the clipped mean of every client at x, and of the change since the previous point.

    Nothing where the query budget is too small.
    """
    x, previous = clients.at(question.x), question.previous
    points = [x] if previous is None else [x, clients.at(previous)]
    if not question.settings.exact and clients.oracle.remaining < _needed(question, clients):
        told = dict.fromkeys(question.due, no_numbers(x))
        return ClippedMeans(**told, shortened=_told(question, x.new_zeros(len(x)))), clients.states
    if question.compare:
        compare_records(clients.oracle, x)
    exact = question.settings.exact
    source: Source = (
        _OfGradients(question, clients.oracle, points)
        if exact
        else _OfSlopes(question, clients, points)
    )
    found: dict[str, Clipped] = {}
    if previous is not None:
        found["change"] = source.change(question.change_clip)
    if question.fresh:
        found["fresh"] = source.fresh(question.clip_norm)
    stds = {"fresh": question.noise_std, "change": question.change_std}
    shortened = _told(question, next(iter(found.values())).shortened)
    noisy = {n: _noisy(told.sums, question, clients, n, stds[n]) for n, told in found.items()}
    return ClippedMeans(**noisy, shortened=shortened), clients.states


@runtime_checkable
class Source(Protocol):
    """What gradients and changes are made of."""

    def fresh(self, clip_norm: float) -> Clipped:
        """Return clipped means at x, and the shares that were shortened."""
        ...

    def change(self, clip_norm: float) -> Clipped:
        """Return clipped means of changes, and the shares that were shortened."""
        ...


class _OfGradients:
    """Exact gradients, of records or of the client as a whole."""

    def __init__(
        self, question: questions.Clipped, oracle: Oracle, points: Sequence[Tensor]
    ) -> None:
        self._oracle, self._points, self._config = oracle, points, question.settings
        self._whole = [oracle.gradient(p) for p in points] if question.unit == "client" else []

    def fresh(self, clip_norm: float) -> Clipped:
        if self._whole:
            return clip_rows(self._whole[0], clip_norm)
        return self._records(None, clip_norm)

    def change(self, clip_norm: float) -> Clipped:
        if self._whole:
            return clip_rows(self._whole[0] - self._whole[1], clip_norm)
        return self._records(self._points[1], clip_norm)

    def _records(self, previous: Tensor | None, clip_norm: float) -> Clipped:
        x = self._points[0]
        norms = x.new_full((len(x),), clip_norm, dtype=torch.float64)
        found = clipped_gradients(
            self._oracle, x, previous, norms, max_floats=self._config.max_floats
        )
        sizes = self._oracle.cohort.sizes.to(x)  # type: ignore[attr-defined]
        return Clipped(found.sums / sizes.unsqueeze(1), found.shortened / sizes)


class _OfSlopes:
    """Slopes along directions that all clients share, of records or of the client as a whole."""

    def __init__(
        self, question: questions.Clipped, clients: Clients, points: Sequence[Tensor]
    ) -> None:
        config, dim = question.settings, len(question.x)
        blocks = Blocks(dim, question.directions, clients.seed, clients.moment.problem)
        require_resolution(clients, question.x, config.mu, dim**-0.5)
        assert question.first_row is not None
        self._differences = Differences.named(config.estimator, config.mu)
        self._directions = blocks.directions(question.first_row[:1], 0).to(points[0])
        self._scale = (dim / blocks.size) ** 0.5
        self._oracle, self._whole = clients.oracle, question.unit == "client"
        self._each = [self._slopes(point) for point in points]

    def fresh(self, clip_norm: float) -> Clipped:
        return self._clipped(self._each[0], clip_norm)

    def change(self, clip_norm: float) -> Clipped:
        return self._clipped([a - b for a, b in zip(*self._each, strict=True)], clip_norm)

    def _clipped(self, rows: Sequence[Float[Tensor, "_ m"]], clip_norm: float) -> Clipped:
        clipped = [clip_rows(own, clip_norm) for own in rows]
        means = [found.sums.mean(dim=0) for found in clipped]
        return Clipped(torch.stack(means), torch.stack([c.shortened.mean() for c in clipped]))

    def _slopes(self, point: Float[Tensor, "n d"]) -> list[Float[Tensor, "_ m"]]:
        """Return the slopes of each client's records, or of its mean as one row."""
        spread = self._directions.expand(len(point), -1, -1)
        asked = self._differences.points(point, spread)
        if self._whole:
            told = [row.unsqueeze(1) for row in self._oracle.value(asked)]
        else:
            told = record_values(self._oracle, asked)
        slopes = [self._differences.slopes(values.T, point.dtype) for values in told]
        return [self._scale * own for own in slopes]


def _needed(question: questions.Clipped, clients: Clients) -> int:
    """Return the queries of slopes, and of a comparison of records."""
    return question.cost().queries + (queries_to_compare(clients.cohort) if question.compare else 0)


def _noisy(
    means: Float[Tensor, "n k"],
    question: questions.Clipped,
    clients: Clients,
    name: str,
    std: float,
) -> Float[Tensor, "n k"]:
    """Return the means with each client's share of the noise."""
    if std == 0:
        return means
    where, source = (name, *clients.moment.parts), question.noise_source
    rows = [
        gaussian_noise(means.shape[1], std, source, clients.seed, *where, client)
        for client in clients.ids
    ]
    return means + torch.stack(rows).to(means)


def _told(question: questions.Clipped, shortened: Float[Tensor, " n"]) -> Tensor | None:
    """Return the share of shortened records, where it is asked for."""
    return shortened.double().unsqueeze(1) if question.report else None
