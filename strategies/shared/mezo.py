"""MeZO for a federation: modules moved where they are, along directions that all clients share.

    s_k = mean_i [f_i(x + mu u_k) - f_i(x - mu u_k)] / (2 mu);   x <- x - (lr / m) sum_k s_k u_k

Malladi, Gao, Nichani, Damian, Lee, Chen & Arora, "Fine-Tuning Language Models with Just Forward
Passes", NeurIPS 2023, algorithm 1, which this is for one client; Qin et al., "FedKSeed", ICML 2024;
Li et al., "DeComFL", ICLR 2025. Nobody holds x as a vector: the state is a log of coefficients, a
direction each, and every client replays it into its module. Shapes: log [k], slopes [n, m]. Floats
a client and round: the log down, m up. Queries: the scheme's (central: 2 m). Memory of a client
above a forward pass: about its largest tensor.

A robust rule (`strategy.aggregator`) acts on the slopes, in R^m, as in seedzo.

Differs from the papers: directions are keyed signs by default; probing never writes to x, and a
step is added in one go; the whole log is sent each round, so that a client that was away, or a run
that is resumed, needs nothing else (papers send what is new, and remember who has what).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from fedzo.config import check_types
from fedzo.parts import composed, part
from fedzo.protocol.questions.in_place import InPlaceConfig, JudgeInPlace, SlopesInPlace
from strategies.core.asking import ask
from strategies.core.base import RoundStrategy
from strategies.core.robust import RobustConfig, aggregate
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.step_config import RateConfig


@composed
class MeZOConfig:
    """Settings of MeZO: the server steps along the mean slopes."""

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    rate: RateConfig = part(RateConfig, server_lr=1e-3)

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, slots=True)
class MeZOState:
    """How many numbers x has, and the coefficients of all directions that it was moved along."""

    dim: int
    log: Float32[Tensor, " k"]
    settings: InPlaceConfig

    @property
    def x(self) -> Float[Tensor, " d"]:
        """A vector without numbers: these are in the modules."""
        return torch.empty(self.dim, device="meta")

    def judge(self) -> JudgeInPlace:
        """Return the question by which x is judged."""
        return JudgeInPlace(log=self.log, settings=self.settings)

    def bring_(self, module: nn.Module, *, seed: int, problem: int) -> None:
        """Move a module, made as the clients', to where the log leads."""
        self.settings.replay(seed, problem).bring_(module, self.log)


class MeZO(RoundStrategy[MeZOState]):
    """Zeroth-order SGD on modules in place."""

    def __init__(self, config: MeZOConfig, *, client: InPlaceConfig | None = None) -> None:
        self._config = config
        self._client = client or InPlaceConfig()

    @property
    def rounds(self) -> RoundConfig:
        return self._config.rounds

    @property
    def robust(self) -> RobustConfig:
        return self._config.robust

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> MeZOState:
        return MeZOState(len(x), torch.empty(0), self._client)

    def round(self, state: MeZOState, plan: RoundPlan) -> Round[MeZOState]:
        question = SlopesInPlace(log=state.log, settings=self._client)
        heard = yield from ask(question, plan.cohort)
        told = heard.said.slopes
        assert told is not None
        if told.shape[1] == 0:
            return state
        slopes = aggregate(told, self.robust, plan, purpose="slopes")
        step = -self._config.rate.server_lr / len(slopes) * slopes
        return MeZOState(state.dim, torch.cat([state.log, step.float()]), self._client)
