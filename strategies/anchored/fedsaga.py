"""FedSAGA: every sampled client is an anchor, and its gradient moves the model in the same round.

    y = x + lookahead (x - x_old);   g_i = grad f_i(y; large batch) of the sampled clients
    v = mean_S (g_i - v_i) + (1 / N) sum_i v_i;   v_i <- g_i;   x <- P(Adam(x, v))

fedzo's own, of known parts: the correction by a table of old gradients is SAGA's (Defazio, Bach &
Lacoste-Julien, NeurIPS 2014), whose v is unbiased where the mean of the table, by which FedAMD and
MIFA step, lags behind; asking ahead of x is Nesterov's; Adam (Kingma & Ba, ICLR 2015) scales the
step. With local_steps > 1, g_i is the mean gradient along so many plain steps of minibatches, as in
FedVARP (Jhunjhunwala et al., UAI 2022), which is this with SGD and without lookahead. Shapes: x, v,
g_i [d]. Floats a client: d down, d up, in one exchange; m up from zeroth-order clients without
local steps. Cost: local_steps gradients of a batch. Memory: d numbers here for each client that has
answered.

A robust rule stands for both means: of the table, and of the cohort.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from fedzo.config import config_values, require, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.objectives.oracle import project
from fedzo.optimizers import Adam, Optimizer, OptimizerState, make_optimizer
from fedzo.parts import composed, part
from fedzo.protocol.questions.anchored import Anchor, AnchorConfig, Anchored, Walk
from fedzo.protocol.questions.training_config import GradientConfig
from fedzo.used_with import UsedWith, above, one_of
from strategies.anchored.anchoring import Anchoring
from strategies.anchored.norm_test import Adapting, NormTestConfig, first_control, renewed
from strategies.core.asking import Heard, ask
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import aggregate, of_all
from strategies.core.rounds import Round, RoundPlan
from strategies.core.server_step import server_step
from strategies.core.step_config import FallingConfig, ServerConfig
from strategies.core.table import ClientTable


@composed
class FedSAGAConfig:
    """Settings of FedSAGA.

    server_lr, server_optimizer, server_momentum, second_momentum: of Adam (its beta1 and beta2), or
    of another optimizer, which has no use for the last. lookahead: how far ahead of x gradients are
    asked, in last steps. init: what stands for clients that have not been asked: zeros, or a first
    round in which everybody is. local_steps, local_lr: of clients that answer the mean gradient
    along them.
    """

    base: NormTestConfig = part(NormTestConfig)
    server: ServerConfig = part(
        ServerConfig, server_lr=0.005, server_optimizer="adam", server_momentum=0.9
    )
    second_momentum: float = 0.99
    lookahead: float = 1.0
    init: Literal["zero", "full"] = "zero"
    local: FallingConfig = part(FallingConfig, local_steps=1, local_lr=0.03)
    USED_WITH: ClassVar[UsedWith] = {
        "second_momentum": one_of("server_optimizer", "adam"),
        **dict.fromkeys(("local_lr", "lr_period"), above("local_steps", 1)),
    }

    def __post_init__(self) -> None:
        momentum, tested = self.second_momentum, self.base.norm_test
        require(0 <= momentum < 1, "second_momentum", momentum, "at least 0 and below 1")
        require_nonnegative("lookahead", self.lookahead)
        if tested and self.local.local_steps > 1:
            raise ConfigError(
                f"norm_test={tested} is about one gradient, not the mean along"
                f" local_steps={self.local.local_steps}; set one of them to its default"
            )

    def optimizer(self) -> Optimizer:
        """Return the server's optimizer; Adam has both momenta."""
        name, first = self.server.server_optimizer, self.server.server_momentum
        if name == "adam":
            return Adam(beta1=first, beta2=self.second_momentum)
        return make_optimizer(name, momentum=first)


@dataclass(frozen=True, slots=True)
class FedSAGAState(Adapting):
    """With the x before, the optimizer's moments, and the table."""

    previous: Float[Tensor, " d"]
    moments: OptimizerState
    anchors: ClientTable


class FedSAGA(ConfiguredStrategy[FedSAGAConfig, GradientConfig, FedSAGAState]):
    """Anchors alone, all of whom move the model."""

    client_config = GradientConfig
    remembers = True

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedSAGAState:
        control = first_control(self._config.base, self._anchor)
        moments = self._config.optimizer().init(x)
        return FedSAGAState(x, control, x, moments, ClientTable.empty(x))

    def round(self, state: FedSAGAState, plan: RoundPlan) -> Round[FedSAGAState]:
        config = self._config
        first = config.init == "full" and not len(state.anchors.clients)
        round_ = Anchoring(plan, self._anchor, state.control, config.local)
        ahead = state.x + config.lookahead * (state.x - state.previous)
        point = project(ahead, plan.lower, plan.upper)
        clients = range(plan.num_clients) if first else plan.cohort
        made = round_.walks if config.local.local_steps > 1 else round_.anchors
        question: Walk | Anchor = made(point, clients)
        heard = yield from ask(question, clients)
        gradients = round_.gradients(question, clients, heard)
        return self._moved(state, plan, heard, gradients) if len(gradients) else state

    @property
    def _anchor(self) -> AnchorConfig:
        """The clients' settings as those of anchors, which all of them are."""
        own = self._client
        return AnchorConfig(
            **config_values(own),  # type: ignore[arg-type]
            anchor_batch_size=own.batch_size,
            anchor_directions=own.num_directions,
        )

    def _moved(
        self, state: FedSAGAState, plan: RoundPlan, heard: Heard[Anchored], gradients: Tensor
    ) -> FedSAGAState:
        config, all_clients = self._config.base, of_all(self.robust, plan)
        everybody = state.anchors.everybody(plan.num_clients)
        base = aggregate(everybody, all_clients, plan, purpose="table")
        changes = gradients - state.anchors.of(heard.clients)
        robust = self.robust if len(heard) <= len(plan.cohort) else all_clients
        asked = replace(config, robust=robust)
        v = aggregate(base + changes, robust, plan, purpose="gradient", start=base)
        optimizer, lr = self._config.optimizer(), self._config.server.server_lr
        return replace(
            server_step(state, v, plan, optimizer, lr),
            previous=state.x,
            anchors=state.anchors.renewed(heard.clients, gradients),
            control=renewed(state.control, asked, plan, heard, gradients, v),
        )
