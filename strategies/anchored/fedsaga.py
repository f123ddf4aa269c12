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

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from fedzo.config import check_types, config_values, require, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.objectives.oracle import project
from fedzo.optimizers import SGD, Adam, OptimizerState
from fedzo.parts import composed, part
from fedzo.protocol.questions.anchored import Anchor, AnchorConfig, Anchored, Walk
from fedzo.protocol.questions.training_config import GradientConfig
from fedzo.used_with import UsedWith, above, one_of
from strategies.anchored.anchoring import Anchoring
from strategies.anchored.norm_test import Control, NormTestConfig, first_control, renewed
from strategies.core.asking import Heard, ask
from strategies.core.base import RoundStrategy
from strategies.core.robust import RobustConfig, aggregate, of_all
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.step_config import LocalConfig, ServerConfig
from strategies.core.table import ClientTable


@composed
class FedSAGAConfig:
    """Settings of FedSAGA.

    server_lr, server_optimizer, server_momentum, second_momentum: of Adam (its beta1 and beta2), or
    of SGD, which has no use for the last. lookahead: how far ahead of x gradients are asked, in
    last steps. init: what stands for clients that have not been asked: zeros, or a first round in
    which everybody is. local_steps, local_lr: of clients that answer the mean gradient along them.
    """

    base: NormTestConfig = part(NormTestConfig)
    server: ServerConfig = part(
        ServerConfig, server_lr=0.005, server_optimizer="adam", server_momentum=0.9
    )
    second_momentum: float = 0.99
    lookahead: float = 1.0
    init: Literal["zero", "full"] = "zero"
    local: LocalConfig = part(LocalConfig, local_steps=1, local_lr=0.03)
    USED_WITH: ClassVar[UsedWith] = {
        "server_momentum": (),
        "second_momentum": one_of("server_optimizer", "adam"),
        "local_lr": above("local_steps", 1),
    }

    def __post_init__(self) -> None:
        check_types(self)
        momentum, tested = self.second_momentum, self.base.norm_test
        require(0 <= momentum < 1, "second_momentum", momentum, "at least 0 and below 1")
        require_nonnegative("lookahead", self.lookahead)
        if tested and self.local.local_steps > 1:
            raise ConfigError(
                f"norm_test={tested} is about one gradient, not the mean along"
                f" local_steps={self.local.local_steps}; set one of them to its default"
            )


@dataclass(frozen=True, slots=True)
class FedSAGAState:
    """The global x and the one before, the optimizer's moments, the table, what was measured."""

    x: Float[Tensor, " d"]
    previous: Float[Tensor, " d"]
    moments: OptimizerState
    anchors: ClientTable
    control: Control

    @property
    def cohort_size(self) -> int:
        """How many clients the next round should ask; 0 as many as participation says."""
        return self.control.cohort_size

    @property
    def report(self) -> Mapping[str, float]:
        """What has been measured of the anchors' gradients."""
        return self.control.report


class FedSAGA(RoundStrategy[FedSAGAState]):
    """Anchors alone, all of whom move the model."""

    def __init__(
        self,
        config: FedSAGAConfig,
        *,
        client: GradientConfig | None = None,
    ) -> None:
        self._config = config
        own = client or GradientConfig()
        self._client = AnchorConfig(
            **config_values(own),  # type: ignore[arg-type]
            anchor_batch_size=own.batch_size,
            anchor_directions=own.num_directions,
        )
        server = config.server
        self._optimizer = (
            SGD(momentum=server.server_momentum)
            if server.server_optimizer == "sgd"
            else Adam(beta1=server.server_momentum, beta2=config.second_momentum)
        )

    @property
    def rounds(self) -> RoundConfig:
        return self._config.base.rounds

    @property
    def robust(self) -> RobustConfig:
        return self._config.base.robust

    @property
    def remembers(self) -> bool:
        return True

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedSAGAState:
        control = first_control(self._config.base, self._client)
        return FedSAGAState(x, x, self._optimizer.init(x), ClientTable.empty(x), control)

    def round(self, state: FedSAGAState, plan: RoundPlan) -> Round[FedSAGAState]:
        first = self._config.init == "full" and not len(state.anchors.clients)
        config = self._config
        round_ = Anchoring(plan, self._client, state.control, config.local)
        ahead = state.x + self._config.lookahead * (state.x - state.previous)
        point = project(ahead, plan.lower, plan.upper)
        clients = range(plan.num_clients) if first else plan.cohort
        made = round_.walks if config.local.local_steps > 1 else round_.anchors
        question: Walk | Anchor = made(point, clients)
        heard = yield from ask(question, clients)
        gradients = round_.gradients(question, clients, heard)
        return self._moved(state, plan, heard, gradients) if len(gradients) else state

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
        moments, x = self._optimizer.step(state.moments, state.x, v, self._config.server.server_lr)
        return replace(
            state,
            x=project(x, plan.lower, plan.upper),
            previous=state.x,
            moments=moments,
            anchors=state.anchors.renewed(heard.clients, gradients),
            control=renewed(state.control, asked, plan, heard, gradients, v),
        )
