"""FZooS as published: local surrogates, corrected by transferable ones.

    1. w, (x)  ->  clients walk along corrected surrogate gradients; x <- P(mean of their ends)
    2. x       ->  clients query around x and send their weights w_i;  w <- mean w_i

Shu, Lin, Dai & Low, "Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
Gradients", arXiv 2308.04077, algorithm 1; the client is clients.surrogate. Floats a client and
round: d + M up, d + M down in two exchanges; clients keep x between rounds, so it is sent again
only to a cohort that has changed. Without active queries around x (`one_exchange`) the exchanges
merge into one, with the weights of each client's own end point.

variant "official" adds the safeguard of the published code, which keeps the old x unless F falls;
the code asks the true F and does not count it, here the cohort is asked and counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.aggregation import mean
from fedzo.config import Scalar
from fedzo.exchange import Exchange
from fedzo.oracle import project
from strategies.fzoos_config import FZooSConfig
from strategies.rounds import Round, RoundPlan
from strategies.safeguard import better


@dataclass(frozen=True, slots=True)
class PublishedState:
    """The global x and weights, empty before the first round, and who has been sent this x."""

    x: Float[Tensor, " d"]
    weights: Float[Tensor, " f"]
    informed: Int[Tensor, " k"]


class PublishedFZooS:
    """The rounds of `variant = "paper"` and `variant = "official"`."""

    def __init__(self, config: FZooSConfig, client_config: Mapping[str, Scalar]) -> None:
        self._config = config
        self._client_config = {
            **client_config,
            "variant": config.variant,
            "merged": config.one_exchange,
            "local_steps": config.local_steps,
            "local_lr": config.local_lr,
        }

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> PublishedState:
        empty = torch.empty(0, dtype=torch.int64)
        return PublishedState(x, torch.empty(0, dtype=torch.float64), empty)

    def round(self, state: PublishedState, plan: RoundPlan) -> Round[PublishedState]:
        cohort = torch.as_tensor(plan.cohort)
        shared = {} if torch.equal(state.informed, cohort) else {"x": state.x}
        if state.weights.numel():
            shared["weights"] = state.weights
        [replies] = yield [self._exchange("train.surrogate", plan, shared)]
        x = project(state.x + mean(replies.tensors["update"]), plan.lower, plan.upper)
        x = x.to(state.x)
        if self._config.variant == "official":
            x = yield from better(state.x, x, plan)
        nobody = torch.empty(0, dtype=torch.int64)
        if self._config.one_exchange:
            return PublishedState(x, mean(replies.tensors["weights"]), nobody)
        [replies] = yield [self._exchange("query.weights", plan, {"x": x})]
        informed = torch.as_tensor(replies.client_ids)
        return PublishedState(x, mean(replies.tensors["weights"]), informed)

    def _exchange(self, kind: str, plan: RoundPlan, shared: Mapping[str, Tensor]) -> Exchange:
        return Exchange(
            kind=kind, client_ids=plan.cohort, shared=shared, config=self._client_config
        )
