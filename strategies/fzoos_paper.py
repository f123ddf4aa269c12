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

from fedzo.config import Scalar
from fedzo.exchange import Exchange, Replies, join_replies
from fedzo.oracle import project
from strategies.fzoos_config import FZooSConfig
from strategies.robust import aggregate
from strategies.rounds import Round, RoundPlan
from strategies.safeguard import better


@dataclass(frozen=True, slots=True)
class PublishedState:
    """The global x and weights, empty before the first round, and what clients have.

    informed: who has been sent this x; begun: who has made the initial queries.
    """

    x: Float[Tensor, " d"]
    weights: Float[Tensor, " f"]
    informed: Int[Tensor, " k"]
    begun: Int[Tensor, " b"]


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
        nobody = torch.empty(0, dtype=torch.int64)
        return PublishedState(x, torch.empty(0, dtype=torch.float64), nobody, nobody)

    def round(self, state: PublishedState, plan: RoundPlan) -> Round[PublishedState]:
        replies = join_replies((yield self._training(state, plan)))
        clients = torch.as_tensor(replies.client_ids)
        begun = torch.cat([state.begun, clients]).unique()
        update = aggregate(replies.tensors["update"], self._config, plan)
        x = project(state.x + update, plan.lower, plan.upper).to(state.x)
        if self._config.variant == "official":
            x = yield from better(state.x, x, plan, self._config)
        if self._config.one_exchange:
            weights = self._common(replies, plan)
            return PublishedState(x, weights, clients[:0], begun)
        config = {**self._client_config, "num_clients": plan.num_clients}
        [answers] = yield [
            Exchange(
                kind="query.weights",
                client_ids=replies.client_ids,
                shared={"x": x},
                config=config,
                expects=self._weights(),
            )
        ]
        informed = torch.as_tensor(answers.client_ids)
        return PublishedState(x, self._common(answers, plan), informed, begun)

    def _common(self, replies: Replies, plan: RoundPlan) -> Float[Tensor, " f"]:
        """Return the weights of the surrogate that all clients get: a rule in R^M."""
        return aggregate(replies.tensors["weights"], self._config, plan, purpose="weights")

    def _weights(self) -> dict[str, list[tuple[int, ...]]]:
        """Return what an answer with weights looks like."""
        return {"weights": [(int(self._client_config["num_features"]),)]}

    def _training(self, state: PublishedState, plan: RoundPlan) -> list[Exchange]:
        """Return one exchange for clients that have begun and one for those that have not."""
        begun, cohort = set(state.begun.tolist()), list(plan.cohort)
        shared = {} if state.informed.tolist() == cohort else {"x": state.x}
        if state.weights.numel():
            shared["weights"] = state.weights
        groups = {
            True: [client for client in cohort if client not in begun],
            False: [client for client in cohort if client in begun],
        }
        config = {**self._client_config, "num_clients": plan.num_clients}
        return [
            Exchange(
                kind="train.surrogate",
                client_ids=clients,
                shared=shared,
                config={**config, "begin": begin},
                expects={
                    "update": [tuple(state.x.shape)],
                    **(self._weights() if self._config.one_exchange else {}),
                },
            )
            for begin, clients in groups.items()
            if clients
        ]
