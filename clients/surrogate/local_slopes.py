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

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.estimation.directions import basis_blocks
from fedzo.optimizers import make_optimizer
from fedzo.protocol.exchange import ClientState
from fedzo.protocol.questions.surrogate import CorrectedSteps, SlopeGradient, SlopeGradients
from fedzo.protocol.questions.training import Trained
from fedzo.runtime.local import Answered, Clients
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


def answer_slope_gradient(question: SlopeGradient, clients: Clients) -> Answered:
    """Probe around x, keep the slopes, and answer the surrogate gradient at x.

    Where the budget is too small, answers from the rows in memory, without a query.
    """
    center, prior = question.x.double(), question.prior
    tables = [_load(state, center) for state in clients.states]
    if clients.oracle.remaining > question.num_directions:
        fresh = _probe(question, clients)
        tables = [
            join_rows([old, new], most=question.max_rows)
            for old, new in zip(tables, fresh, strict=True)
        ]
    told = [_told(prior, rows, center) for rows in tables]
    gradients, evidence = [gradient for gradient, _ in told], [heights for _, heights in told]
    after = [
        _save(state, rows, center, gradient[0])
        for state, rows, gradient in zip(clients.states, tables, gradients, strict=True)
    ]
    gradient = torch.cat(gradients).to(question.x)
    return SlopeGradients(gradient=gradient, evidence=torch.stack(evidence)), after


def take_corrected_steps(question: CorrectedSteps, clients: Clients) -> Answered:
    """Take corrected steps on each client's surrogate, without a query."""
    common, states = question.gradient, clients.states
    start = torch.stack([state["x"] for state in states])
    posteriors = [_posterior(question.prior, _load(s, s["x"]), s["x"]) for s in states]
    correction = common.double() - torch.stack([state["gradient"] for state in states])
    optimizer = make_optimizer("adam")
    x, moments = start, optimizer.init(start)
    for _ in range(question.local_steps):
        own = torch.cat([p.gradient(z.unsqueeze(0)) for p, z in zip(posteriors, x, strict=True)])
        moments, x = optimizer.step(moments, x, own + correction, question.local_lr)
        x = clients.oracle.project(x)
    return Trained(update=(x - start).to(common)), states


def _probe(question: SlopeGradient, clients: Clients) -> list[SlopeRows]:
    """Query around x and return each client's new rows."""
    x, first = clients.at(question.x), question.first_row
    base = x.double().unsqueeze(1)
    m, d, key = question.num_directions, x.shape[1], clients.moment.problem
    directions = basis_blocks(first, m, d, seed=clients.seed, problem=key).to(base)
    ends = clients.oracle.project(base + question.mu * directions)
    values = clients.oracle.value(torch.cat([base, ends], dim=1).to(x)).double()
    numbers = torch.arange(m, device=x.device)
    return [
        rows_between(
            base[i].expand(m, -1),
            ends[i],
            values[i, 1:] - values[i, 0],
            owners=torch.zeros_like(numbers).unsqueeze(1),
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
