"""Private FedAvg and FedZO: clients' updates are clipped, averaged, and the average gets noise.

    d_i = x_i,K - x;   Delta = mean_i clip(d_i, C) + N(0, (z 2 C / n)^2 I);   x <- P(x + lr Delta)

McMahan, Ramage, Talwar & Zhang, "Learning Differentially Private Recurrent Language Models", ICLR
2018, algorithm 1. What is protected is everything that a client has: all of its records, and all
of its answers. Since the update may come of any local rule, clients that can only query are
private too. Shapes: x [d], updates [n, d]. Floats a client: d down, d up.

Differs from the paper: cohorts have a fixed size and neighbors differ by one replaced client, so
the average of n is divided by n; sampling amplifies only where the sample is secret
(`secret_sample`), for every client is told the seed by which cohorts are drawn. A robust rule may
take the place of the mean where the bound on its sensitivity is known (fedzo.privacy.gaussian).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fedzo.optimizers import OptimizerState
from fedzo.parts import composed, part
from fedzo.privacy.accountant import EVERYBODY, Ledger, Sampling
from fedzo.privacy.gaussian import private_generator
from fedzo.protocol.questions.training_config import TrainingConfig, ZerothOrderConfig
from fedzo.used_with import UsedWith, any_of, below, one_of
from strategies.averaging.fedavg import local_training
from strategies.core.asking import ask
from strategies.core.configured import ConfiguredStrategy
from strategies.core.privacy_config import NOISY, PrivateConfig, require_client_level
from strategies.core.rounds import Round, RoundPlan
from strategies.core.server_step import server_step
from strategies.core.spending import Spent
from strategies.core.step_config import FallingConfig, ServerConfig
from strategies.private.privacy import Release, charged, noise_and_sampling, private_mean


@composed
class PrivateFedAvgConfig:
    """Settings of private FedAvg and FedZO.

    clip_norm: of an update. secret_sample: whether who sees x cannot know who was asked; then a
    cohort smaller than all counts less.
    """

    base: PrivateConfig = part(PrivateConfig, unit="client")
    clip_norm: float = 1.0
    local: FallingConfig = part(FallingConfig)
    server: ServerConfig = part(ServerConfig)
    secret_sample: bool = False
    USED_WITH: ClassVar[UsedWith] = {
        "secret_sample": below("participation", 1),
        "noise_source": any_of(NOISY, one_of("secret_sample", True)),
    }

    def __post_init__(self) -> None:
        require_client_level(
            self.base.privacy,
            self.clip_norm,
            "updates are of whole clients and clipped by the server; for records, or noise of"
            " clients, use diff2",
        )


@dataclass(frozen=True, slots=True)
class PrivateFedAvgState:
    """The global x, the server optimizer's moments, the noise multiplier, and what is spent."""

    x: Float[Tensor, " d"]
    moments: OptimizerState
    noise_multiplier: float
    privacy: Spent


class PrivateFedAvg(ConfiguredStrategy[PrivateFedAvgConfig, TrainingConfig, PrivateFedAvgState]):
    """Averages clipped updates of clients that take local steps, with noise."""

    client_config = ZerothOrderConfig

    def cohort_generator(self, seed: int, problem: int, round_index: int) -> np.random.Generator:
        """Return a generator that is as secret as the noise, where the sample must be."""
        if self._config.secret_sample and self._config.base.privacy.noise_source == "os":
            return private_generator("os", seed)
        return super().cohort_generator(seed, problem, round_index)

    def silenced(self, state: PrivateFedAvgState) -> PrivateFedAvgState:
        return replace(state, noise_multiplier=0.0)

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> PrivateFedAvgState:
        return PrivateFedAvgState(x, self._optimizer.init(x), 0.0, Spent(Ledger.empty()))

    def round(self, state: PrivateFedAvgState, plan: RoundPlan) -> Round[PrivateFedAvgState]:
        config = self._config
        z, sampling = noise_and_sampling(
            config.base.privacy, plan, self._sampling(plan), state.noise_multiplier
        )
        spent = state.privacy.without_noise()
        if z:
            spent = charged(state.privacy, config.base.privacy, [(z, 1)], sampling)
        question = local_training(config.local, self._client, state.x, plan.round_index)
        heard = yield from ask(question, plan.cohort)
        release = Release(config.clip_norm, z)
        told = private_mean(heard.said.update, release, config.base, plan)
        moved = server_step(state, -told.mean, plan, self._optimizer, config.server.server_lr)
        spent = replace(spent, noise_std=told.std, shortened=told.shortened)
        return replace(moved, noise_multiplier=z, privacy=spent)

    def _sampling(self, plan: RoundPlan) -> Sampling:
        if not self._config.secret_sample:
            return EVERYBODY
        return Sampling(drawn=len(plan.cohort), population=plan.num_clients)
