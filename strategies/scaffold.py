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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from fedzo.exchange import Exchange
from fedzo.optimizers import OptimizerState, make_optimizer
from fedzo.oracle import project
from strategies.base import RoundStrategy
from strategies.fedavg import FedAvgConfig
from strategies.robust import aggregate, of_all, remembered
from strategies.rounds import Round, RoundConfig, RoundPlan
from strategies.safeguard import better
from strategies.table import ClientTable


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


class _Scaffold(RoundStrategy[ScaffoldState]):
    """What both types share: the local steps and the server's step."""

    def __init__(
        self,
        config: FedAvgConfig,
        *,
        rule: str = "zeroth_order",
        client_config: Mapping[str, Scalar] | None = None,
    ) -> None:
        if config.weighting != "uniform":
            raise ConfigError(
                f"strategy.weighting={config.weighting} has no meaning for SCAFFOLD, whose control"
                " variates are plain means; set it to uniform"
            )
        self._config = config
        self._rule = rule
        self._client_config = dict(client_config or {})
        self._optimizer = make_optimizer(config.server_optimizer, momentum=config.server_momentum)

    @property
    def rounds(self) -> RoundConfig:
        return self._config

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> ScaffoldState:
        self._config.require_clients(num_clients)
        return ScaffoldState(
            x,
            self._optimizer.init(x),
            control=torch.zeros_like(x),
            controls=ClientTable.empty(x),
            last=remembered(self._config, x),
        )

    def _training(
        self, state: ScaffoldState, clients: Sequence[int], config: Mapping[str, Scalar]
    ) -> Exchange:
        local = {"local_steps": self._config.local_steps, "local_lr": self._config.local_lr}
        named = ("update", "control") if config else ("update",)
        return Exchange(
            kind=f"train.{self._rule}",
            client_ids=clients,
            shared={"x": state.x, "control": state.control},
            config={**self._client_config, **local, **config},
            expects={name: [tuple(state.x.shape)] for name in named},
        )

    def _step(
        self, state: ScaffoldState, updates: Float[Tensor, "n d"], plan: RoundPlan
    ) -> Round[ScaffoldState]:
        config = self._config
        update = aggregate(updates, config, plan, start=state.last)
        moments, x = self._optimizer.step(state.moments, state.x, -update, config.server_lr)
        x = project(x, plan.lower, plan.upper)
        if config.safeguard:
            x = yield from better(state.x, x, plan, config)
        last = update if config.rule.learns else state.last
        return replace(state, x=x, moments=moments, last=last)


class Scaffold1(_Scaffold):
    """SCAFFOLD type I: control variates are estimated at the server's x."""

    def round(self, state: ScaffoldState, plan: RoundPlan) -> Round[ScaffoldState]:
        [anchors] = yield [
            Exchange(
                kind="query.gradient",
                client_ids=plan.cohort,
                shared={"x": state.x},
                config={**self._client_config, "local_steps": 1, "local_lr": 1.0},
                expects={"gradient": [tuple(state.x.shape)]},
            )
        ]
        gradients = anchors.tensors["gradient"]
        control = aggregate(gradients, self._config, plan, purpose="control", start=state.control)
        state = replace(state, control=control)
        [replies] = yield [self._training(state, anchors.client_ids, {})]
        return (yield from self._step(state, replies.tensors["update"], plan))


class Scaffold2(_Scaffold):
    """SCAFFOLD type II: control variates are the mean local gradients of the last round."""

    def round(self, state: ScaffoldState, plan: RoundPlan) -> Round[ScaffoldState]:
        [replies] = yield [self._training(state, plan.cohort, {"renew_control": True})]
        controls = state.controls.renewed(replies.client_ids, replies.tensors["control"])
        everybody, config = controls.everybody(plan.num_clients), of_all(self._config, plan)
        control = aggregate(everybody, config, plan, purpose="control", start=state.control)
        state = replace(state, control=control, controls=controls)
        return (yield from self._step(state, replies.tensors["update"], plan))
