"""Local steps along gradients that are estimated from values (the client of FedZO).

    x_0 = x;   x_{t+1} = optimizer(x_t, g_t),   g_t = estimate from the oracle at x_t

Fang, Yu, Jiang, Shi, Jones & Zhou, "Communication-Efficient Stochastic Zeroth-Order Optimization
for Federated Learning", IEEE TSP 2022, algorithm 1. Shapes: x [d], update [n, d]. Cost a step and
client: see fedzo.estimation.schemes (forward: num_directions + 1 queries). Sent: d floats up, d
down.

Differs from the paper: any estimator, direction law and local optimizer (Adam, re-initialized every
round, by default; the paper takes plain steps along Gaussian or sphere directions). Queries are
kept in the box, local iterates are not unless `project`: projecting each client's noisy steps pulls
their mean inwards, which stalled attacks near corners of the box (docs/results/projection.md).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clients.core.correction import Correction, keep_control
from clients.core.local import minibatches, part_of, require_resolution
from fedzo.estimation.directions import sample_cohort_directions
from fedzo.estimation.schemes import (
    Differences,
    combine,
    direction_reach,
    estimator_scale,
    gradient_coefficients,
)
from fedzo.objectives.oracle import Oracle
from fedzo.optimizers import make_optimizer
from fedzo.protocol.exchange import ClientState
from fedzo.protocol.questions.training import (
    Estimated,
    GradientEstimate,
    Trained,
    ZerothOrderSteps,
)
from fedzo.protocol.questions.training_config import ZerothOrderConfig
from fedzo.runtime.local import Answered, Clients
from fedzo.surrogates.spatial import smooth_directions

MEMORY = "residual_values"
_DRAWN_AHEAD = 1 << 18
"""Numbers of directions that may be drawn ahead for a cohort: 2 MB in float64."""


def take_zeroth_order_steps(question: ZerothOrderSteps, clients: Clients) -> Answered:
    """Take local steps along estimates; fewer where the budget ends."""
    config, oracle = question.settings, clients.oracle
    batches = minibatches(clients, config, question.local_steps)
    estimate = Estimate(config, oracle, clients.streams("directions"), question.local_steps)
    require_resolution(clients, question.x, config.mu, estimate.reach)
    start = clients.at(question.x)
    memory = _load_memory(clients.states, config, start) if estimate.scheme.remembers else None
    optimizer = make_optimizer(config.optimizer, momentum=config.momentum)
    x, moments = start, optimizer.init(start)
    correct = Correction(question, clients.states, start)
    for step in range(question.local_steps):
        if oracle.remaining < estimate.num_queries:
            break
        batch = None if batches is None else batches[:, step]
        gradient, memory = estimate.gradient(x, batch, memory)
        gradient = correct(gradient, x)
        moments, x = optimizer.step(moments, x, gradient, question.local_lr)
        x = oracle.project(x) if config.project else x
    control, states = correct.finish()
    return Trained(update=x - start, control=control), _save_memory(states, memory)


def answer_gradient(question: GradientEstimate, clients: Clients) -> Answered:
    """Estimate every client's gradient at x once; it becomes the client's control variate.

    Answers a gradient of zero where the budget is too small.
    """
    estimate = Estimate(question.settings, clients.oracle, clients.streams("directions"), 1)
    x = clients.at(question.x)
    if clients.oracle.remaining < estimate.num_queries:
        return Estimated(gradient=torch.zeros_like(x)), clients.states
    gradient, _ = estimate.gradient(x, None, None)
    return Estimated(gradient=gradient), keep_control(clients.states, gradient)


class Estimate:
    """A cohort's gradient estimates with their source of directions."""

    def __init__(
        self,
        config: ZerothOrderConfig,
        oracle: Oracle,
        generators: Sequence[np.random.Generator],
        steps: int,
    ) -> None:
        self._differences = Differences.named(config.estimator, config.mu)
        self.scheme = self._differences.scheme
        self._count = config.directions_in(oracle.cohort.dim)
        self.num_queries = self.scheme.num_queries(self._count)
        self._scale = estimator_scale(self.scheme, config.directions, oracle.cohort.dim)
        kind = "coordinate" if self.scheme.axes else config.directions
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
        points = self._differences.points(x, directions)
        values = self._oracle.value(points, of=part_of(self._oracle.cohort, batch))
        slopes = self._differences.slopes(values, x.dtype, memory)
        complete = memory is None and not self._oracle.saw_non_finite
        coefficients = gradient_coefficients(
            slopes, self._scale, complete=complete, axes=self.scheme.axes
        )
        gradient = combine(coefficients, directions)
        return gradient, values if self.scheme.remembers else None

    def _directions(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m d"]:
        n, d = x.shape
        if self.scheme.axes:
            return torch.eye(d, dtype=x.dtype, device=x.device).expand(n, d, d)
        if not self._ahead:
            self._ahead = self._draw(n, d, x.dtype)
        return self._ahead.pop(0).to(x.device)

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
    blank = x.new_full((config.num_directions,), torch.nan, dtype=torch.float64)
    known = [state.get(MEMORY, blank).double() for state in states]
    rows = [k if len(k) == config.num_directions else blank for k in known]
    return torch.stack(rows)


def _save_memory(
    states: Sequence[ClientState], memory: Float[Tensor, "n m"] | None
) -> Sequence[ClientState]:
    if memory is None:
        return states
    return [{**state, MEMORY: row} for state, row in zip(states, memory, strict=True)]
