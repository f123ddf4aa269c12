"""SCAFFOLD with finite differences: control variates against the clients' drift.

    client: g <- g_i(x_i) + c - c_i;   server: x <- x + mean_i update_i

    type I:   c_i = an estimate of grad f_i at the server's x, asked before the local steps
    type II:  c_i = the mean of the last uncorrected local gradients of client i;
              c = (1 / N) sum of the last c_i that arrived from each client

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020,
algorithm 1, options I and II; with finite differences in Shu et al., arXiv 2308.04077, appendix.
Floats a client and round: type I 3d down (x twice, c), 2d up, in two exchanges; type II 2d down,
2d up. Queries: the client rule's, and for type I one more estimate, counted.

Differs from the papers: type I takes c over the round's cohort; option II of the first paper
derives c_i from the update, type II here from the gradients, as the second paper does; and clients
send c_i where the papers send its change, so that an answer that is lost is made good by the next
(with changes, c and the mean of the c_i part for good: with one answer in ten lost the method
diverged). The server keeps d numbers for each client that has answered.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.optimizers import OptimizerState
from fedzo.protocol.questions.training import GradientEstimate, LocalSteps
from fedzo.protocol.questions.training_config import TrainingConfig, ZerothOrderConfig
from strategies.averaging.fedavg import local_training
from strategies.averaging.fedavg_config import FedAvgConfig
from strategies.averaging.server_step import stepped
from strategies.core.asking import ask
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import aggregate, of_all, remembered
from strategies.core.rounds import Round, RoundPlan
from strategies.core.table import ClientTable


@dataclass(frozen=True, slots=True)
class ScaffoldState:
    """The global x, the server optimizer's moments, and the mean control variate c.

    controls: type II: the control variates that have arrived.
    """

    x: Float[Tensor, " d"]
    moments: OptimizerState
    control: Float[Tensor, " d"]
    controls: ClientTable
    last: Float[Tensor, " l"]


class _Scaffold(ConfiguredStrategy[FedAvgConfig, TrainingConfig, ScaffoldState]):
    """What both types share: the local steps and the server's step."""

    client_config = ZerothOrderConfig

    def __init__(self, config: FedAvgConfig, *, client: TrainingConfig | None = None) -> None:
        if config.weighting != "uniform":
            raise ConfigError(
                f"strategy.weighting={config.weighting} has no meaning for SCAFFOLD, whose control"
                " variates are plain means; set it to uniform"
            )
        super().__init__(config, client=client)

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> ScaffoldState:
        return ScaffoldState(
            x,
            self._optimizer.init(x),
            control=torch.zeros_like(x),
            controls=ClientTable.empty(x),
            last=remembered(self.robust, x),
        )

    def _training(self, state: ScaffoldState, plan: RoundPlan, *, renew: bool) -> LocalSteps:
        told = {"control": state.control, "renew_control": renew}
        local = self._config.local
        return local_training(local, self._client, state.x, plan.round_index, **told)

    def _step(
        self, state: ScaffoldState, updates: Float[Tensor, "n d"], plan: RoundPlan
    ) -> Round[ScaffoldState]:
        config = self._config
        update = aggregate(updates, config.robust, plan, start=state.last)
        return (yield from stepped(state, update, plan, config, self._optimizer))


class Scaffold1(_Scaffold):
    """SCAFFOLD type I: control variates are estimated at the server's x."""

    def round(self, state: ScaffoldState, plan: RoundPlan) -> Round[ScaffoldState]:
        assert isinstance(self._client, ZerothOrderConfig)
        anchors = yield from ask(GradientEstimate(x=state.x, settings=self._client), plan.cohort)
        gradients = anchors.said.gradient
        control = aggregate(gradients, self.robust, plan, purpose="control", start=state.control)
        state = replace(state, control=control)
        heard = yield from ask(self._training(state, plan, renew=False), anchors.clients)
        return (yield from self._step(state, heard.said.update, plan))


class Scaffold2(_Scaffold):
    """SCAFFOLD type II: control variates are the mean local gradients of the last round."""

    def round(self, state: ScaffoldState, plan: RoundPlan) -> Round[ScaffoldState]:
        heard = yield from ask(self._training(state, plan, renew=True), plan.cohort)
        assert heard.said.control is not None
        controls = state.controls.renewed(heard.clients, heard.said.control)
        everybody, config = controls.everybody(plan.num_clients), of_all(self.robust, plan)
        control = aggregate(everybody, config, plan, purpose="control", start=state.control)
        state = replace(state, control=control, controls=controls)
        return (yield from self._step(state, heard.said.update, plan))
