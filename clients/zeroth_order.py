"""Local steps along gradients that are estimated from values (the client of FedZO).

    x_0 = x;   x_{t+1} = optimizer(x_t, g_t),   g_t = estimate from the oracle at x_t

Fang, Yu, Jiang, Shi, Jones & Zhou, "Communication-Efficient Stochastic Zeroth-Order Optimization
for Federated Learning", IEEE TSP 2022, algorithm 1. Shapes: x [d], update [n, d]. Cost a step and
client: see fedzo.estimators (forward: num_directions + 1 queries). Sent: d floats up, d down.

Differs from the paper: any estimator, direction law and local optimizer (Adam, re-initialized every
round, by default; the paper takes plain steps along Gaussian or sphere directions). Queries are
kept in the box, local iterates are not unless `project`: projecting each client's noisy steps pulls
their mean inwards, which stalled attacks near corners of the box (docs/results/projection.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clients.correction import Correction, keep_control
from clients.local import (
    LocalTraining,
    MinibatchConfig,
    minibatches,
    part_of,
    require_resolution,
    start_points,
)
from fedzo.config import require, require_nonnegative, take_config
from fedzo.directions import DirectionKind, sample_cohort_directions
from fedzo.estimators import (
    EstimatorName,
    combine,
    direction_reach,
    estimator_scale,
    gradient_coefficients,
    make_scheme,
)
from fedzo.exchange import ClientState, Exchange
from fedzo.optimizers import OptimizerName, make_optimizer
from fedzo.oracle import BoundsPolicy, NonFinitePolicy, Oracle
from fedzo.randomness import streams
from fedzo.surrogates.spatial import smooth_directions

MEMORY = "residual_values"
_DRAWN_AHEAD = 1 << 18
"""Numbers of directions that may be drawn ahead for a cohort: 2 MB in float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZerothOrderConfig(MinibatchConfig):
    """Settings of the rule `zeroth_order`.

    estimator: forward, central, residual (one query a direction) or coordinate (all axes).
    directions: their law, see fedzo.directions; num_directions: a step and client.
    mu: smoothing radius, in units of x. lengthscale: above 0, x is a square image and directions
    are smooth over so many pixels, so the estimate is that of K grad f, K as in
    fedzo.surrogates.spatial, up to scale. optimizer, momentum: the local optimizer.
    non_finite: "fail" or "skip" values that are NaN or inf. out_of_bounds: "clip" or "allow"
    queries outside the box. project: whether iterates are projected onto the box.
    """

    estimator: EstimatorName = "forward"
    directions: DirectionKind = "orthogonal"
    num_directions: int = 20
    mu: float = 0.01
    lengthscale: float = 0.0
    optimizer: OptimizerName = "adam"
    momentum: float = 0.0
    non_finite: NonFinitePolicy = "fail"
    out_of_bounds: BoundsPolicy = "clip"
    project: bool = False

    def __post_init__(self) -> None:
        MinibatchConfig.__post_init__(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < float("inf"), "mu", self.mu, "a positive number")
        axes = self.estimator == "coordinate"
        require_nonnegative("lengthscale", self.lengthscale)
        require(
            not (axes and self.lengthscale), "lengthscale", self.lengthscale, "0 along the axes"
        )
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")


class ZerothOrder:
    """The local rule `zeroth_order`."""

    def __call__(
        self, exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]
    ) -> tuple[dict[str, Tensor], Sequence[ClientState]]:
        config = take_config(ZerothOrderConfig, exchange.config)
        training = take_config(LocalTraining, exchange.config)
        batches = minibatches(oracle.cohort, config, training, exchange.client_ids)
        sources = streams(*training.key("directions"), clients=exchange.client_ids)
        estimate = Estimate(config, oracle, sources, training.local_steps)
        require_resolution(exchange, config.mu, estimate.reach)
        start = start_points(exchange)
        memory = _load_memory(states, config, start) if estimate.scheme.remembers else None
        optimizer = make_optimizer(config.optimizer, momentum=config.momentum)
        x, moments = start, optimizer.init(start)
        correct = Correction(exchange, states, start)
        for step in range(training.local_steps):
            if oracle.remaining < estimate.num_queries:
                break
            batch = None if batches is None else batches[:, step]
            gradient, memory = estimate.gradient(x, batch, memory)
            gradient = correct(gradient, x)
            moments, x = optimizer.step(moments, x, gradient, training.local_lr)
            x = oracle.project(x) if config.project else x
        extra, states = correct.finish()
        return {"update": x - start, **extra}, _save_memory(states, memory)


def answer_gradient(
    exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]
) -> tuple[dict[str, Tensor], Sequence[ClientState]]:
    """Estimate every client's gradient at x once; it becomes the client's control variate.

    Answers a gradient of zero where the budget is too small.
    """
    config = take_config(ZerothOrderConfig, exchange.config)
    training = take_config(LocalTraining, exchange.config)
    sources = streams(*training.key("directions"), clients=exchange.client_ids)
    estimate = Estimate(config, oracle, sources, 1)
    x = start_points(exchange)
    if oracle.remaining < estimate.num_queries:
        return {"gradient": torch.zeros_like(x)}, states
    gradient, _ = estimate.gradient(x, None, None)
    return {"gradient": gradient}, keep_control(states, gradient)


class Estimate:
    """A cohort's gradient estimates with their source of directions."""

    def __init__(
        self,
        config: ZerothOrderConfig,
        oracle: Oracle,
        generators: Sequence[np.random.Generator],
        steps: int,
    ) -> None:
        self.scheme = make_scheme(config.estimator)
        self._axes = config.estimator == "coordinate"
        self._count = oracle.cohort.dim if self._axes else config.num_directions
        self.num_queries = self.scheme.num_queries(self._count)
        self._scale = estimator_scale(config.estimator, config.directions, oracle.cohort.dim)
        kind = "coordinate" if self._axes else config.directions
        self.reach = direction_reach(kind, oracle.cohort.dim)
        self._config = config
        self._oracle = oracle
        self._generators = generators
        self._steps = steps
        self._ahead: list[Float[Tensor, "n m d"]] = []

    def gradient(
        self,
        x: Float[Tensor, "n d"],
        batch: Int[Tensor, "n b"] | None,
        memory: Float[Tensor, "n m"] | None,
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n m"] | None]:
        """Return the estimate at x, and the values that the next one may need."""
        directions = self._directions(x)
        mu = self._config.mu
        points = self.scheme.points(x, directions, mu)
        values = self._oracle.value(points, of=part_of(self._oracle.cohort, batch))
        slopes = self.scheme.slopes(values, mu, memory, x.dtype)
        complete = memory is None and not self._oracle.saw_non_finite
        coefficients = gradient_coefficients(slopes, self._scale, complete=complete)
        gradient = combine(coefficients, directions)
        return gradient, values if self.scheme.remembers else None

    def _directions(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m d"]:
        n, d = x.shape
        if self._axes:
            return torch.eye(d, dtype=x.dtype, device=x.device).expand(n, d, d)
        if not self._ahead:
            self._ahead = self._draw(n, d, x.dtype)
        directions = self._ahead.pop(0)
        return directions if x.device.type == "cpu" else directions.to(x.device)

    def _draw(self, n: int, d: int, dtype: torch.dtype) -> list[Float[Tensor, "n m d"]]:
        """Draw one step's directions or, where rows are drawn one by one, those of several steps.

        Gaussian rows come out of a generator the same bits however many are asked at once.
        """
        kind, count, steps = self._config.directions, self._count, 1
        if kind in ("gaussian", "sphere"):
            steps = min(self._steps, max(1, _DRAWN_AHEAD // (n * count * d)))
        drawn = sample_cohort_directions(
            kind, steps * count, d, generators=self._generators, dtype=dtype
        )
        drawn = smooth_directions(drawn, self._config.lengthscale)
        return list(drawn.split(count, dim=1))


def _load_memory(
    states: Sequence[ClientState], config: ZerothOrderConfig, x: Float[Tensor, "n d"]
) -> Float[Tensor, "n m"] | None:
    """Return what clients remember; one without such a memory gets NaN: slopes to skip."""
    if not any(MEMORY in state for state in states):
        return None
    blank = torch.full((config.num_directions,), torch.nan, dtype=torch.float64)
    known = [state.get(MEMORY, blank).double() for state in states]
    rows = [k if len(k) == config.num_directions else blank for k in known]
    return torch.stack(rows).to(x.device)


def _save_memory(
    states: Sequence[ClientState], memory: Float[Tensor, "n m"] | None
) -> Sequence[ClientState]:
    if memory is None:
        return states
    return [{**state, MEMORY: row} for state, row in zip(states, memory, strict=True)]
