"""FedNova: clients that work unequally much count the same.

    d_i = update_i / a_i;   x <- P(server_step(x, -tau sum_i w_i d_i)),   tau = sum_i w_i a_i
    a_i = tau_i for SGD;  [tau_i - rho (1 - rho^tau_i) / (1 - rho)] / (1 - rho) with momentum rho

Wang, Liu, Liang, Joshi & Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous
Federated Optimization", NeurIPS 2020, eq. 6 and section 4. Plain averaging of tau_i steps minimizes
a sum in which busy clients weigh more. Shapes: x [d], updates [n, d]. Sent and queried: as FedAvg.

Where all take the same number of steps this is FedAvg. Differs from the paper: the server draws
tau_i, uniform from min_steps to local_steps, once for each client, and tells it; there it follows
from the client's data and speed.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.parts import composed, part
from fedzo.protocol.questions.training import Trained
from fedzo.protocol.questions.training_config import FirstOrderConfig, ZerothOrderConfig
from fedzo.randomness import streams
from fedzo.used_with import UsedWith, where
from strategies.averaging.fedavg import FedAvgState, client_weights, local_training
from strategies.averaging.fedavg_config import FedAvgConfig
from strategies.averaging.server_step import stepped
from strategies.core.asking import Asked, ask_together
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import aggregate, remembered
from strategies.core.rounds import Round, RoundPlan


@composed
class FedNovaConfig:
    """Settings of FedNova: those of FedAvg, and how unequally much clients work.

    min_steps: fewest local steps of a client in a round, local_steps the most. normalized: false
    averages the updates as they are, which is FedAvg with unequal work.
    """

    averaging: FedAvgConfig = part(FedAvgConfig)
    min_steps: int = 2
    normalized: bool = True
    USED_WITH: ClassVar[UsedWith] = {
        "normalized": where(
            ("min_steps", "local_steps"),
            lambda least, most: least < most,
            "{0} below {1}",
        ),
    }

    def __post_init__(self) -> None:
        steps, most = self.min_steps, self.averaging.local.local_steps
        require(1 <= steps <= most, "min_steps", steps, f"from 1 to local_steps={most}")


class FedNova(ConfiguredStrategy[FedNovaConfig, FirstOrderConfig | ZerothOrderConfig, FedAvgState]):
    """Normalized averaging."""

    client_config = FirstOrderConfig

    def __init__(
        self,
        config: FedNovaConfig,
        *,
        client: FirstOrderConfig | ZerothOrderConfig | None = None,
    ) -> None:
        super().__init__(config, client=client)
        if self._client.optimizer != "sgd":
            raise ConfigError("FedNova knows the work of local SGD alone; set client.optimizer=sgd")

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedAvgState:
        return FedAvgState(x, self._optimizer.init(x), remembered(self.robust, x))

    def round(self, state: FedAvgState, plan: RoundPlan) -> Round[FedAvgState]:
        config = self._config.averaging
        speeds = streams(plan.seed, "local steps", plan.problem, clients=plan.cohort)
        most = config.local.local_steps
        own = {
            client: int(speed.integers(self._config.min_steps, most + 1))
            for client, speed in zip(plan.cohort, speeds, strict=True)
        }
        asked: list[Asked[Trained]] = [
            (
                local_training(
                    config.local, self._client, state.x, plan.round_index, local_steps=count
                ),
                [client for client in plan.cohort if own[client] == count],
            )
            for count in sorted(set(own.values()))
        ]
        heard = yield from ask_together(asked)
        weights, updates = client_weights(heard, config), heard.said.update
        if self._config.normalized:
            work = torch.tensor([self._work(own[client]) for client in heard.clients])
            updates = updates / work.to(updates).unsqueeze(1)
            shares = torch.ones(len(work)) if weights is None else weights
            updates = updates * float((shares * work).sum() / shares.sum())
        update = aggregate(updates, config.robust, plan, start=state.last, weights=weights)
        return (yield from stepped(state, update, plan, config, self._optimizer))

    def _work(self, steps: int) -> float:
        """Return a_i: the sum of the weights of a client's gradients in its update."""
        rho = self._client.momentum
        return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
