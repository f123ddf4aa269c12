"""Private seed and scalar: slopes are clipped, averaged, and the average gets noise.

    s_i: the K m slopes of client i     s = mean_i clip(s_i, C) + N(0, (z 2 C / n)^2 I)
    x <- x - (lr / m) sum_k s_k u_k     (strategies.shared.seed_scalar)

What is protected is everything that a client has. Zhang et al., "DPZero: Private Fine-Tuning of
Language Models without Backpropagation", ICML 2024, and Tang et al., "Private Fine-tuning of Large
Language Models with Zeroth-order Optimization", 2024, clip a number an example of one holder of
data; here it is the vector of a client, as in McMahan et al., ICLR 2018, algorithm 1. The noise has
K m numbers, whatever d: its norm does not grow with x.
Shapes: slopes [n, K m]. What the server publishes is the log.
"""

from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor

from fedzo.parts import composed, part
from fedzo.privacy.accountant import Ledger
from fedzo.protocol.questions.in_place import InPlaceConfig
from strategies.core.base import RoundStrategy
from strategies.core.privacy_config import PrivateConfig, require_client_level
from strategies.core.robust import RobustConfig
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.spending import Spent
from strategies.private.privacy import Release, charged, per_round, private_mean
from strategies.shared.seed_scalar import (
    SeedScalarState,
    WalkConfig,
    ask_slopes,
    moved,
    started,
)


@composed
class PrivateSeedScalarConfig:
    """Settings of private seed and scalar; clip_norm: of a client's slopes in a round."""

    base: PrivateConfig = part(PrivateConfig, unit="client")
    clip_norm: float = 1.0
    walk: WalkConfig = part(WalkConfig)

    def __post_init__(self) -> None:
        why = "slopes are of whole clients and clipped by the server"
        require_client_level(self.base.privacy, self.clip_norm, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateSeedScalarState(SeedScalarState):
    """With the noise multiplier, and what is spent."""

    noise_multiplier: float = 0.0
    privacy: Spent = field(default_factory=lambda: Spent(Ledger.empty()))


class PrivateSeedScalar(RoundStrategy[PrivateSeedScalarState]):
    """Seed and scalar whose clients are private."""

    def __init__(
        self, config: PrivateSeedScalarConfig, *, client: InPlaceConfig | None = None
    ) -> None:
        self._config = config
        self._client = client or InPlaceConfig()

    @property
    def rounds(self) -> RoundConfig:
        return self._config.base.rounds

    @property
    def robust(self) -> RobustConfig:
        return self._config.base.robust

    def silenced(self, state: PrivateSeedScalarState) -> PrivateSeedScalarState:
        return replace(state, noise_multiplier=0.0)

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> PrivateSeedScalarState:
        return started(x, num_clients, self._client, PrivateSeedScalarState)

    def round(
        self, state: PrivateSeedScalarState, plan: RoundPlan
    ) -> Round[PrivateSeedScalarState]:
        config = self._config
        z = state.noise_multiplier or per_round(config.base.privacy, plan)
        spent = state.privacy.without_noise()
        if z:
            spent = charged(state.privacy, config.base.privacy, [(z, 1)])
        heard = yield from ask_slopes(state, plan.cohort, config.walk)
        slopes = heard.said.slopes
        assert slopes is not None
        if slopes.shape[1] == 0:
            return state
        told = private_mean(slopes, Release(config.clip_norm, z), config.base, plan)
        spent = replace(spent, noise_std=told.std, shortened=told.shortened)
        after = moved(state, plan.cohort, heard, told.mean, config.walk)
        return replace(after, noise_multiplier=z, privacy=spent)
