"""FZooS as published: local surrogates, corrected by transferable ones.

    1. w, (x)  ->  clients walk along corrected surrogate gradients; x <- P(mean of their ends)
    2. x       ->  clients query around x and send their weights w_i;  w <- mean w_i

Shu, Lin, Dai & Low, "Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
Gradients", arXiv 2308.04077, algorithm 1; the client is clients.surrogate.surrogate. Floats a
client and round: d + M up, d + M down in two exchanges; clients keep x between rounds, so it is
sent again only to a cohort that has changed. Without active queries around x (`one_exchange`) the
exchanges merge into one, with the weights of each client's own end point.

variant "official" adds the safeguard of the published code, which keeps the old x unless F falls;
the code asks the true F and does not count it, here the cohort is asked and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.objectives.oracle import project
from fedzo.protocol.questions.surrogate import (
    SurrogateConfig,
    Surrogated,
    SurrogateSteps,
    SurrogateWeights,
)
from strategies.core.asking import Asked, Heard, ask, ask_together
from strategies.core.robust import aggregate, latest, remembered
from strategies.core.rounds import Round, RoundPlan
from strategies.core.safeguard import better
from strategies.surrogate.fzoos_config import FZooSConfig


@dataclass(frozen=True, slots=True)
class PublishedState:
    """The global x and weights, empty before the first round, and what clients have.

    informed: who has been sent this x; begun: who has made the initial queries; last: the last
    aggregate of updates if the rule needs it.
    """

    x: Float[Tensor, " d"]
    weights: Float[Tensor, " f"]
    informed: Int[Tensor, " k"]
    begun: Int[Tensor, " b"]
    last: Float[Tensor, " l"]

    def unsure_of(self, clients: Sequence[int]) -> "PublishedState":
        """Return the state in which x is told again: clients may have been sent another."""
        return replace(self, informed=self.informed[:0])


class PublishedFZooS:
    """The rounds of `variant = "paper"` and `variant = "official"`."""

    def __init__(self, config: FZooSConfig, client: SurrogateConfig) -> None:
        self._config = config
        self._settings = client

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> PublishedState:
        nobody = torch.empty(0, dtype=torch.int64)
        last = remembered(self._config.robust, x)
        return PublishedState(x, torch.empty(0, dtype=torch.float64), nobody, nobody, last)

    def round(self, state: PublishedState, plan: RoundPlan) -> Round[PublishedState]:
        heard = yield from ask_together(self._training(state, plan))
        clients = torch.as_tensor(heard.clients)
        begun = torch.cat([state.begun, clients]).unique()
        assert heard.said.update is not None
        robust = self._config.robust
        update = aggregate(heard.said.update, robust, plan, start=state.last)
        last = latest(robust, update, state.last)
        x = project(state.x + update, plan.lower, plan.upper).to(state.x)
        if self._config.variant == "official":
            x = yield from better(state.x, x, plan, robust)
        if self._config.one_exchange:
            weights = self._common(heard, plan, state.weights)
            return PublishedState(x, weights, clients[:0], begun, last)
        question = SurrogateWeights(x=x, num_clients=plan.num_clients, **self._told(plan))
        answers = yield from ask(question, heard.clients)
        informed = torch.as_tensor(answers.clients)
        weights = self._common(answers, plan, state.weights)
        return PublishedState(x, weights, informed, begun, last)

    def _told(self, plan: RoundPlan) -> dict[str, Any]:
        config = self._config
        own = {"settings": self._settings, "variant": config.variant}
        return {**own, "merged": config.one_exchange, **config.local.told(plan.round_index)}

    def _common(
        self, heard: Heard[Surrogated], plan: RoundPlan, before: Float[Tensor, " b"]
    ) -> Float[Tensor, " f"]:
        """Return the weights of the surrogate that all clients get: a rule in R^M."""
        told, robust = heard.said.weights, self._config.robust
        assert told is not None
        start = before if before.numel() else None
        return aggregate(told, robust, plan, purpose="weights", start=start)

    def _training(self, state: PublishedState, plan: RoundPlan) -> list[Asked[Surrogated]]:
        """Return one question for clients that have begun and one for those that have not."""
        begun, cohort = set(state.begun.tolist()), list(plan.cohort)
        groups = {
            True: [client for client in cohort if client not in begun],
            False: [client for client in cohort if client in begun],
        }
        return [
            (
                SurrogateSteps(
                    x=None if state.informed.tolist() == cohort else state.x,
                    weights=state.weights if state.weights.numel() else None,
                    begin=begin,
                    num_clients=plan.num_clients,
                    dim=len(state.x),
                    **self._told(plan),
                ),
                clients,
            )
            for begin, clients in groups.items()
        ]
