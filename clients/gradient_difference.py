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
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from clients.gradients import no_answer
from clients.local import require_resolution, start_points
from fedzo.bases import Blocks
from fedzo.config import check_types, require, take_config
from fedzo.estimators import make_scheme
from fedzo.exchange import ClientState, Exchange
from fedzo.oracle import BoundsPolicy, Oracle
from fedzo.privacy.averages import queries_to_compare
from fedzo.privacy.clipping import MAX_FLOATS, Clipped, clip_rows
from fedzo.privacy.gaussian import NoiseSource, Unit, gaussian_noise

Answer = tuple[dict[str, Tensor], Sequence[ClientState]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedConfig:
    """Settings of the rule `gradient_difference`.

    gradient: exact, or zeroth_order: made of the records' losses by `estimator`. num_directions: a
    question, at most the dimension of x. mu: smoothing radius, in units of x. max_floats: that
    records' gradients, or what makes them, may take at once; 4 bytes each in float32.
    """

    gradient: Literal["exact", "zeroth_order"] = "exact"
    estimator: Literal["forward", "central"] = "central"
    num_directions: int = 20
    mu: float = 0.01
    max_floats: int = MAX_FLOATS
    out_of_bounds: BoundsPolicy = "clip"

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < float("inf"), "mu", self.mu, "a positive number")
        require(self.max_floats >= 1, "max_floats", self.max_floats, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedTask:
    """What the strategy says beside: clip norms, of whom, and the client's share of the noise.

    clip_norm, noise_std: of gradients, if they are asked for (`fresh`); change_clip, change_std: of
    changes since the previous point, if one is given. report: whether the share of shortened
    records is told, for simulations.
    """

    fresh: bool = True
    clip_norm: float = 0.0
    noise_std: float = 0.0
    change_clip: float = 0.0
    change_std: float = 0.0
    unit: Unit = "record"
    noise_source: NoiseSource = "os"
    report: bool = False
    compare: bool = False
    seed: int = 0
    round_index: int = 0
    exchange_index: int = 0
    problem: int = 0


def answer_records(exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]) -> Answer:
    """Return how many records each client has, 1 where they do not count them."""
    sizes = getattr(oracle.cohort, "sizes", torch.ones(len(exchange.client_ids)))
    return {"records": sizes.double().unsqueeze(1)}, states


def answer_clipped(exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]) -> Answer:
    """Return the clipped mean of every client at x, and of the change since the previous point.

    Nothing where the query budget is too small.
    """
    config = take_config(ClippedConfig, exchange.config)
    task = take_config(ClippedTask, exchange.config)
    x = start_points(exchange)
    before = exchange.shared.get("previous")
    points = [x] if before is None else [x, before.expand(len(x), -1)]
    exact = config.gradient == "exact"
    if not exact and oracle.remaining < _needed(config, task, oracle, len(points)):
        names = (["fresh"] if task.fresh else []) + (["change"] if before is not None else [])
        told = {name: no_answer(x) for name in names}
        return {**told, **_report(task, torch.zeros(len(x)))}, states
    if task.compare:
        oracle.compare_records(x)
    source: Source = (
        _OfGradients(oracle, points, config, task)
        if exact
        else _OfSlopes(oracle, points, config, task, exchange)
    )
    found: dict[str, Clipped] = {}
    if before is not None:
        found["change"] = source.change(task.change_clip)
    if task.fresh:
        found["fresh"] = source.fresh(task.clip_norm)
    stds = {"fresh": task.noise_std, "change": task.change_std}
    shortened = next(iter(found.values())).shortened
    noisy = {n: _noisy(told.sums, task, exchange, n, stds[n]) for n, told in found.items()}
    return {**noisy, **_report(task, shortened)}, states


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
        self, oracle: Oracle, points: Sequence[Tensor], config: ClippedConfig, task: ClippedTask
    ) -> None:
        self._oracle, self._points, self._config = oracle, points, config
        self._whole = [oracle.gradient(p) for p in points] if task.unit == "client" else []

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
        norms = torch.full((len(x),), clip_norm, dtype=torch.float64)
        found = self._oracle.clipped_gradients(
            x, previous, norms, max_floats=self._config.max_floats
        )
        sizes = self._oracle.cohort.sizes.to(x)  # type: ignore[attr-defined]
        return Clipped(found.sums / sizes.unsqueeze(1), found.shortened / sizes)


class _OfSlopes:
    """Slopes along directions that all clients share, of records or of the client as a whole."""

    def __init__(
        self,
        oracle: Oracle,
        points: Sequence[Tensor],
        config: ClippedConfig,
        task: ClippedTask,
        exchange: Exchange,
    ) -> None:
        dim = oracle.cohort.dim
        blocks = Blocks(dim, config.num_directions, task.seed, task.problem)
        require_resolution(exchange, config.mu, dim**-0.5)
        self._scheme, self._mu = make_scheme(config.estimator), config.mu
        self._directions = blocks.directions(exchange.per_client["first_row"][:1], 0).to(points[0])
        self._scale = (dim / blocks.size) ** 0.5
        self._oracle, self._task = oracle, task
        self._each = [self._slopes(point) for point in points]

    def fresh(self, clip_norm: float) -> Clipped:
        return self._clipped(self._each[0], clip_norm)

    def change(self, clip_norm: float) -> Clipped:
        return self._clipped([a - b for a, b in zip(*self._each, strict=True)], clip_norm)

    def _clipped(self, rows: Sequence[Float[Tensor, "k m"]], clip_norm: float) -> Clipped:
        clipped = [clip_rows(own, clip_norm) for own in rows]
        means = [found.sums.mean(dim=0) for found in clipped]
        return Clipped(torch.stack(means), torch.stack([c.shortened.mean() for c in clipped]))

    def _slopes(self, point: Float[Tensor, "n d"]) -> list[Float[Tensor, "k m"]]:
        """Return the slopes of each client's records, or of its mean as one row."""
        spread = self._directions.expand(len(point), -1, -1)
        asked = self._scheme.points(point, spread, self._mu)
        if self._task.unit == "client":
            told = [row.unsqueeze(1) for row in self._oracle.value(asked)]
        else:
            told = self._oracle.record_values(asked)
        kind = point.dtype
        slopes = [self._scheme.slopes(values.T, self._mu, None, kind) for values in told]
        return [self._scale * own for own in slopes]


def _needed(config: ClippedConfig, task: ClippedTask, oracle: Oracle, num_points: int) -> int:
    """Return the queries of slopes at so many points, and of a comparison of records."""
    directions = min(config.num_directions, oracle.cohort.dim)
    slopes = make_scheme(config.estimator).num_queries(directions) * num_points
    return slopes + (queries_to_compare(oracle.cohort) if task.compare else 0)


def _noisy(
    means: Float[Tensor, "n k"], task: ClippedTask, exchange: Exchange, name: str, std: float
) -> Float[Tensor, "n k"]:
    """Return the means with each client's share of the noise."""
    if std == 0:
        return means
    where = (name, task.problem, task.round_index, task.exchange_index)
    rows = [
        gaussian_noise(means.shape[1], std, task.noise_source, task.seed, *where, client)
        for client in exchange.client_ids
    ]
    return means + torch.stack(rows).to(means)


def _report(task: ClippedTask, shortened: Float[Tensor, " n"]) -> dict[str, Tensor]:
    return {"shortened": shortened.double().unsqueeze(1)} if task.report else {}
