"""Local steps on a slope surrogate that never leaves the client (FZooS, variant on_client).

    query.slope_gradient:  x  ->  g_i(x) = grad mu_i(x) [n, d] and the evidence of 3 lengthscales
    train.slopes:          g = mean_i g_i(x)  ->  update [n, d] of T steps
                           z <- Adam(z, grad mu_i(z) + g - g_i(x))

mu_i is the slope surrogate (fedzo.surrogates.slopes) of client i on its own rows. All clients probe
the same points and share kernel and lengthscale, so their surrogates are the same linear map of
what they observed and the mean of g_i is the surrogate gradient of F: the correction is exact at x.
No value leaves the client, only gradients do. fedzo's own; the correction is that of Shu et al.,
arXiv 2308.04077, eq. 8, with gamma = 1 and frozen at x. Queries: m + 1. Floats up d + 3 and d, down
d + 1 and d. Cost: r^3 / 3 a client and exchange for r rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from clients.local import LocalTraining, start_points
from clients.probes import Probes
from fedzo.config import take_config
from fedzo.directions import basis_blocks
from fedzo.exchange import ClientState, Exchange
from fedzo.optimizers import make_optimizer
from fedzo.oracle import Oracle
from fedzo.surrogates.kernels import KernelName
from fedzo.surrogates.slope_geometry import centered, geometry
from fedzo.surrogates.slope_posterior import SlopePosterior, condition, log_evidence
from fedzo.surrogates.slopes import (
    SlopePrior,
    SlopeRows,
    join_rows,
    no_rows,
    rows_between,
)

LENGTHSCALE_FACTORS = (0.5, 1.0, 2.0)
"""Of the lengthscale in use: those whose evidence clients report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeTask:
    """What the strategy says of the surrogate."""

    kernel: KernelName
    lengthscale: float
    max_rows: int

    def prior(self) -> SlopePrior:
        return SlopePrior(kernel=self.kernel, lengthscale=self.lengthscale)


def answer_slope_gradient(
    exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]
) -> tuple[dict[str, Tensor], Sequence[ClientState]]:
    """Probe around x, keep the slopes, and answer the surrogate gradient at x.

    Where the budget is too small, answers from the rows in memory, without a query.
    """
    task, probes = take_config(SlopeTask, exchange.config), take_config(Probes, exchange.config)
    x, prior = start_points(exchange), task.prior()
    tables = [_load(state, x[0].double()) for state in states]
    if oracle.remaining > probes.num_directions:
        fresh = _probe(probes, exchange, oracle, x)
        tables = [
            join_rows([old, new], most=task.max_rows)
            for old, new in zip(tables, fresh, strict=True)
        ]
    center = x[0].double()
    told = [_told(prior, rows, center) for rows in tables]
    gradients, evidence = [gradient for gradient, _ in told], [heights for _, heights in told]
    after = [
        _save(state, rows, center, gradient[0])
        for state, rows, gradient in zip(states, tables, gradients, strict=True)
    ]
    return {"gradient": torch.cat(gradients).to(x), "evidence": torch.stack(evidence)}, after


class LocalSlopes:
    """The local rule `slopes`: corrected steps on each client's surrogate, without a query."""

    def __call__(
        self, exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]
    ) -> tuple[dict[str, Tensor], Sequence[ClientState]]:
        task = take_config(SlopeTask, exchange.config)
        training = take_config(LocalTraining, exchange.config)
        common = exchange.shared["gradient"]
        start = torch.stack([state["x"] for state in states])
        posteriors = [_posterior(task.prior(), _load(s, s["x"]), s["x"]) for s in states]
        correction = common.double() - torch.stack([state["gradient"] for state in states])
        optimizer = make_optimizer("adam")
        x, moments = start, optimizer.init(start)
        for _ in range(training.local_steps):
            own = torch.cat(
                [p.gradient(z.unsqueeze(0)) for p, z in zip(posteriors, x, strict=True)]
            )
            moments, x = optimizer.step(moments, x, own + correction, training.local_lr)
            x = oracle.project(x)
        return {"update": (x - start).to(common)}, states


def _probe(
    probes: Probes, exchange: Exchange, oracle: Oracle, x: Float[Tensor, "n d"]
) -> list[SlopeRows]:
    """Query around x and return each client's new rows."""
    first = exchange.per_client["first_row"]
    m, d = probes.num_directions, x.shape[1]
    directions = basis_blocks(first, m, d, seed=probes.seed, problem=probes.problem)
    base = x.double().unsqueeze(1)
    ends = oracle.project(base + probes.mu * directions)
    values = oracle.value(torch.cat([base, ends], dim=1).to(x)).double()
    numbers = torch.arange(m)
    return [
        rows_between(
            base[i].expand(m, -1),
            ends[i],
            values[i, 1:] - values[i, 0],
            owners=torch.zeros(m, 1, dtype=torch.int64),
            start=torch.full_like(numbers, int(first[i])),
            end=numbers,
        )
        for i in range(len(x))
    ]


def _posterior(prior: SlopePrior, rows: SlopeRows, center: Float[Tensor, " d"]) -> SlopePosterior:
    return condition(prior, centered(rows, center), 1)


def _told(
    prior: SlopePrior, rows: SlopeRows, center: Float[Tensor, " d"]
) -> tuple[Float[Tensor, "1 d"], Float[Tensor, " k"]]:
    """Return the surrogate gradient at the center, and the evidence of the lengthscales."""
    seen = centered(rows, center)
    shape = geometry(seen, seen)
    gradient = condition(prior, seen, 1, shape=shape).gradient(center.unsqueeze(0))
    trials = (replace(prior, lengthscale=f * prior.lengthscale) for f in LENGTHSCALE_FACTORS)
    found = [log_evidence(trial, rows, shape, 1) for trial in trials]
    return gradient, torch.tensor(found, dtype=torch.float64).clamp_min(-1e9)


def _load(state: ClientState, x: Float[Tensor, " d"]) -> SlopeRows:
    if "slope" not in state:
        return no_rows(x)
    return SlopeRows(**{name: state[name] for name in SlopeRows.__slots__})


def _save(
    state: ClientState, rows: SlopeRows, x: Float[Tensor, " d"], gradient: Float[Tensor, " d"]
) -> dict[str, Tensor]:
    table = {name: getattr(rows, name) for name in SlopeRows.__slots__}
    return {**state, **table, "x": x, "gradient": gradient}
