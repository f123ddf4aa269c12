"""FZooS whose slopes stay on the clients: gradients of their surrogates travel instead.

    1. x                      ->  g_i(x), evidence_i;   l <- the lengthscale of highest sum
    2. g = mean_i g_i(x)      ->  update_i;             x <- P(x + mean_i update_i)

The client is clients.surrogate.local_slopes; compare strategies.surrogate.fzoos_improved, which is
better where values may be sent: it has a line search. fedzo's own variant of Shu et al., arXiv
2308.04077, algorithm 1. Floats a client and round: 2 d + 3 up, 2 d + 1 down. Queries: m + 1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.objectives.oracle import project
from fedzo.protocol.questions.surrogate import CorrectedSteps, SlopeGradient
from strategies.core.asking import ask
from strategies.core.robust import aggregate, latest, remembered
from strategies.core.rounds import Round, RoundPlan
from strategies.surrogate.fzoos_config import FZooSConfig


@dataclass(frozen=True, slots=True)
class OnClientState:
    """The global x, the lengthscale of all surrogates, and the next row of the bases.

    gradient, update: the last aggregates if the rule needs them.
    """

    x: Float[Tensor, " d"]
    lengthscale: float
    gradient: Float[Tensor, " l"]
    update: Float[Tensor, " l"]
    next_row: int = 0


class OnClientFZooS:
    """The rounds of `variant = "on_client"`."""

    def __init__(self, config: FZooSConfig) -> None:
        self._config = config

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> OnClientState:
        nothing = remembered(self._config.robust, x)
        return OnClientState(x, self._config.slopes.first_lengthscale(len(x)), nothing, nothing)

    def round(self, state: OnClientState, plan: RoundPlan) -> Round[OnClientState]:
        config, dim = self._config, len(state.x)
        m = min(config.slopes.num_directions, dim)
        question = SlopeGradient(
            x=state.x,
            first_row=torch.full((len(plan.cohort),), state.next_row),
            kernel=config.slopes.kernel,
            lengthscale=state.lengthscale,
            max_rows=config.slopes.max_rows,
            num_directions=m,
            mu=config.slopes.probe_length(dim),
        )
        heard = yield from ask(question, plan.cohort)
        gradient = aggregate(
            heard.said.gradient, config.robust, plan, purpose="gradient", start=state.gradient
        )
        evidence = heard.said.evidence
        if config.robust.rule.is_mean:
            best = int(evidence.sum(dim=0).argmax())
        else:  # one vote a client
            best = int(evidence.argmax(dim=1).bincount(minlength=3).argmax())
        steps = CorrectedSteps(
            gradient=gradient,
            kernel=config.slopes.kernel,
            lengthscale=state.lengthscale,
            max_rows=config.slopes.max_rows,
            **config.local.told(plan.round_index),
        )
        moved = yield from ask(steps, heard.clients)
        update = aggregate(moved.said.update, config.robust, plan, start=state.update)
        x = project(state.x + update, plan.lower, plan.upper)
        lengthscale = config.slopes.bounded_lengthscale(state.lengthscale * 2.0 ** (best - 1), dim)
        return OnClientState(
            x.to(state.x),
            lengthscale,
            gradient=latest(config.robust, gradient, state.gradient),
            update=latest(config.robust, update, state.update),
            next_row=state.next_row + m,
        )
