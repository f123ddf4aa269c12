"""Federated averaging with a server optimizer; with zeroth-order clients it is FedZO.

    d_i = x_i,K - x;   Delta = sum_i w_i d_i / sum_i w_i;   x <- P(server_step(x, -Delta))

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS
2017, algorithm 1; server optimizers: Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
algorithm 2; FedZO: Fang et al., IEEE TSP 2022, algorithm 1. Shapes: x [d], updates [n, d]. Sent: d
floats down and d up for each client and round; queries: the client rule's.

With malicious clients the mean gives way to a rule of fedzo.aggregation (`strategy.aggregator`).

Differs from the papers: clients weigh the same unless `weighting="examples"`, because F is the
plain mean of the clients' objectives; server Adam corrects its bias; x is projected onto the box.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.optimizers import OptimizerState
from fedzo.protocol.questions.training import LocalSteps, Trained, local_steps
from fedzo.protocol.questions.training_config import TrainingConfig, ZerothOrderConfig
from strategies.averaging.fedavg_config import FedAvgConfig
from strategies.averaging.server_step import stepped
from strategies.core.asking import Heard, ask
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import aggregate, remembered
from strategies.core.rounds import Round, RoundPlan
from strategies.core.step_config import FallingConfig

__all__ = ["FedAvg", "FedAvgConfig", "FedAvgState", "client_weights", "local_training"]


@dataclass(frozen=True, slots=True)
class FedAvgState:
    """The global x, the server optimizer's moments, and the last aggregate if the rule needs it."""

    x: Float[Tensor, " d"]
    moments: OptimizerState
    last: Float[Tensor, " l"]


class FedAvg(ConfiguredStrategy[FedAvgConfig, TrainingConfig, FedAvgState]):
    """Averages the updates of clients that take local steps, by the rule that `client` is of."""

    client_config = ZerothOrderConfig

    def __init__(
        self,
        config: FedAvgConfig,
        *,
        client: TrainingConfig | None = None,
        proximal_weight: float = 0.0,
    ) -> None:
        super().__init__(config, client=client)
        self._proximal_weight = proximal_weight

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedAvgState:
        return FedAvgState(x, self._optimizer.init(x), remembered(self.robust, x))

    def round(self, state: FedAvgState, plan: RoundPlan) -> Round[FedAvgState]:
        config = self._config
        question = local_training(
            config.local,
            self._client,
            state.x,
            plan.round_index,
            proximal_weight=self._proximal_weight,
        )
        heard = yield from ask(question, plan.cohort)
        weights = client_weights(heard, config)
        update = aggregate(
            heard.said.update, config.robust, plan, start=state.last, weights=weights
        )
        return (yield from stepped(state, update, plan, config, self._optimizer))


def local_training(
    config: FallingConfig,
    client: TrainingConfig,
    x: Float[Tensor, " d"],
    round_index: int,
    **more: Any,
) -> LocalSteps:
    """Return the question for a round's local steps from x.

    `more` adds to it, or replaces settings.
    """
    return local_steps(client, x=x, **{**config.told(round_index), **more})


def client_weights(heard: Heard[Trained], config: FedAvgConfig) -> Float[Tensor, " n"] | None:
    """Return what each client counts, None for all the same.

    Raises ConfigError where clients do not say how many examples they have.
    """
    if config.weighting == "uniform":
        return None
    examples = heard.counts.get("num_examples", {})
    if any(client not in examples for client in heard.clients):
        raise ConfigError(
            "strategy.weighting=examples needs clients that count examples; set it to uniform"
        )
    return torch.tensor([float(examples[client]) for client in heard.clients])
