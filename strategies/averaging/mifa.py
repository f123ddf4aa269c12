"""MIFA: the server steps by the mean of everybody's last update, however old.

    G_i <- update_i of the sampled clients;   x <- P(server_step(x, -(1 / N) sum_i G_i))

Gu, Huang, Zhang & Huang, "Fast Federated Learning in the Presence of Arbitrary Device
Unavailability", NeurIPS 2021, algorithm 1. Shapes: x [d], updates [n, d]. Sent and queried: as
FedAvg. Memory: d numbers here for each client that has answered.

Differs from the paper: the memory is the server's (there, clients send changes); who is asked is
drawn by the driver; `init` chooses between waiting for everybody in the first round, as the paper
does, and counting who has not answered as zero or not at all. A robust rule may stand for the mean.
"""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.optimizers import OptimizerState
from fedzo.parts import composed, part
from fedzo.protocol.questions.training_config import FirstOrderConfig, TrainingConfig
from strategies.averaging.fedavg import local_training
from strategies.averaging.fedavg_config import FedAvgConfig
from strategies.averaging.server_step import stepped
from strategies.core.asking import ask
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import aggregate, of_all, remembered
from strategies.core.rounds import Round, RoundPlan, TooFewAnswers
from strategies.core.table import ClientTable, FirstPass


@composed
class MIFAConfig:
    """Settings of MIFA: those of FedAvg, and what stands for clients that have not answered yet.

    init: "full" asks everybody in the first round; "zero" counts them as zero; "lazy" leaves them
    out of the mean.
    """

    averaging: FedAvgConfig = part(FedAvgConfig)
    init: FirstPass = "full"

    def __post_init__(self) -> None:
        weighting = self.averaging.weighting
        require(weighting == "uniform", "weighting", weighting, "uniform: all clients are averaged")


@dataclass(frozen=True, slots=True)
class MIFAState:
    """The global x, the server optimizer's moments, and everybody's last update."""

    x: Float[Tensor, " d"]
    moments: OptimizerState
    updates: ClientTable
    last: Float[Tensor, " l"]


class MIFA(ConfiguredStrategy[MIFAConfig, TrainingConfig, MIFAState]):
    """Averaging over all clients, of whom only some are asked."""

    client_config = FirstOrderConfig
    remembers = True

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> MIFAState:
        nothing = remembered(self.robust, x)
        return MIFAState(x, self._optimizer.init(x), ClientTable.empty(x), nothing)

    def round(self, state: MIFAState, plan: RoundPlan) -> Round[MIFAState]:
        config, init = self._config.averaging, self._config.init
        first = init == "full" and not len(state.updates.clients)
        clients = range(plan.num_clients) if first else plan.cohort
        question = local_training(config.local, self._client, state.x, plan.round_index)
        heard = yield from ask(question, clients)
        table = state.updates.renewed(heard.clients, heard.said.update)
        known = table.known(init, plan.num_clients)
        try:
            update = aggregate(known, of_all(config.robust, plan), plan, start=state.last)
        except TooFewAnswers:  # of so few the rule says nothing yet, but they are remembered
            return replace(state, updates=table)
        state = replace(state, updates=table)
        return (yield from stepped(state, update, plan, config, self._optimizer))
