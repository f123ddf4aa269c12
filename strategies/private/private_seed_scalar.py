"""Private seed and scalar: slopes are clipped, averaged, and the average gets noise.

    unit=client   s_i: the K m slopes of client i, clipped to C      s = mean_i s_i + N(0, S^2 I)
    unit=record   s_i: mean of the client's records' m slopes, each clipped to C, or of a sample's
    x <- x - (lr / m) sum_k s_k u_k     (strategies.shared.seed_scalar)

What is protected is everything that a client has, as in McMahan et al., ICLR 2018, algorithm 1, or
one record, as Zhang et al., "DPZero: Private Fine-Tuning of Language Models without
Backpropagation", ICML 2024, and Tang et al., "Private Fine-tuning of Large Language Models with
Zeroth-order Optimization", 2024, do for one holder of data (clients.private.record_slopes). S is z
times the sensitivity of the mean: for one replaced, 2 C / n, or 2 C / (n r) for clients of at least
r records (strategies.private.record_bounds). Of samples of b records it is 2 C / (n b), which is
accounted for as b of r without replacement, or as if it were all, if that is known to cost less.
The noise has K m numbers, whatever d: its norm does not grow with x. With unit=record K is 1: after
a step of its own, a client's slopes of every record depend on all the others.
Shapes: slopes [n, K m]. What the server publishes is the log.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.parts import composed, part
from fedzo.privacy.accountant import EVERYBODY, Ledger, Sampling
from fedzo.protocol.questions.in_place import (
    InPlaceConfig,
    RecordSlopes,
    RecordSlopesInPlace,
    SlopesInPlace,
)
from strategies.core.asking import ask_together
from strategies.core.configured import ConfiguredStrategy
from strategies.core.privacy_config import PrivateConfig
from strategies.core.rounds import Round, RoundPlan, TooFewAnswers
from strategies.core.spending import Spent
from strategies.private.privacy import (
    Release,
    charged,
    noise_and_sampling,
    private_mean,
    share_shortened,
)
from strategies.private.record_bounds import (
    Claims,
    admitted,
    after_comparison,
    by_comparison,
)
from strategies.shared.seed_scalar import (
    SeedScalarState,
    WalkConfig,
    by_news,
    moved,
    slopes_question,
    started,
)


@composed
class PrivateSeedScalarConfig:
    """Settings of private seed and scalar; clip_norm: of a client's, or record's, slopes."""

    base: PrivateConfig = part(PrivateConfig, unit="client")
    clip_norm: float = 1.0
    walk: WalkConfig = part(WalkConfig)

    def __post_init__(self) -> None:
        privacy, steps = self.base.privacy, self.walk.local_steps
        require(0 < self.clip_norm < math.inf, "clip_norm", self.clip_norm, "positive and finite")
        require(privacy.noise == "server", "noise", privacy.noise, "server: it clips and adds")
        if privacy.unit == "client":
            return
        require(steps == 1, "local_steps", steps, "1 with unit=record")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateSeedScalarState(SeedScalarState):
    """With the noise multiplier, what is spent, and what is known of clients' records."""

    noise_multiplier: float = 0.0
    claims: Claims
    privacy: Spent = field(default_factory=lambda: Spent(Ledger.empty()))

    @property
    def left_out(self) -> Mapping[int, str]:
        """Return the clients that say a number of records for which the noise is not made."""
        return self.claims.left_out


class PrivateSeedScalar(
    ConfiguredStrategy[PrivateSeedScalarConfig, InPlaceConfig, PrivateSeedScalarState]
):
    """Seed and scalar whose clients are private."""

    client_config = InPlaceConfig

    def __init__(
        self, config: PrivateSeedScalarConfig, *, client: InPlaceConfig | None = None
    ) -> None:
        super().__init__(config, client=client)
        privacy = config.base.privacy
        if privacy.unit == "client" or not self._client.batch_size:
            return
        if self._client.sampling != "epochs" or privacy.adjacency != "replace_one":
            told = (
                f"client.sampling={self._client.sampling}, strategy.adjacency={privacy.adjacency}"
            )
            raise ConfigError(
                f"{told} must be epochs and replace_one with batches and unit=record: samples that"
                " count for privacy are uniform and of a fixed size"
            )

    def published(self, state: PrivateSeedScalarState) -> Float[Tensor, " k"]:
        return state.log[-self._config.walk.local_steps * self._client.num_directions :]

    def stretch(self, state: PrivateSeedScalarState) -> float:
        return self._config.walk.rate.server_lr / self._client.num_directions

    def silenced(self, state: PrivateSeedScalarState) -> PrivateSeedScalarState:
        return replace(state, noise_multiplier=0.0)

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> PrivateSeedScalarState:
        return started(
            x,
            num_clients,
            self._client,
            PrivateSeedScalarState,
            claims=Claims.none(num_clients),
        )

    def round(
        self, state: PrivateSeedScalarState, plan: RoundPlan
    ) -> Round[PrivateSeedScalarState]:
        config = self._config
        if config.base.privacy.unit == "record":
            claims = yield from admitted(state.claims, config.base, plan)
            state, plan = replace(state, claims=claims), _among(plan, claims)
        records, drawn = self._sampled(state.claims.bound)
        z, sampling = noise_and_sampling(config.base.privacy, plan, drawn, state.noise_multiplier)
        spent = state.privacy.without_noise()
        if z:
            spent = charged(state.privacy, config.base.privacy, [(z, 1)], sampling)
        heard = yield from ask_together(self._questions(state, plan.cohort))
        slopes = heard.said.slopes
        assert slopes is not None
        if slopes.shape[1] == 0:
            return state
        release = Release(config.clip_norm, z, records)
        told = private_mean(slopes, release, config.base, plan)
        shortened = told.shortened
        if isinstance(heard.said, RecordSlopes):
            shortened = share_shortened(heard.said.shortened)
        spent = replace(spent, noise_std=told.std, shortened=shortened)
        after = moved(state, plan.cohort, heard, told.mean, config.walk)
        claims = after_comparison(state.claims, heard.clients)
        return replace(after, noise_multiplier=z, privacy=spent, claims=claims)

    def _sampled(self, bound: int) -> tuple[int, Sampling]:
        """Return over how many records, of at least so many, a client's mean is, and their draw."""
        size = self._client.batch_size
        if not (size and bound):
            return max(1, bound), EVERYBODY
        if size > bound:
            raise ConfigError(
                f"client.batch_size={size} exceeds the {bound} records for which the noise is made;"
                " lower it"
            )
        return size, Sampling(drawn=size, population=bound)

    def _questions(
        self, state: PrivateSeedScalarState, cohort: Sequence[int]
    ) -> list[tuple[SlopesInPlace, Sequence[int]]]:
        """Return what is asked of whom, with a comparison of losses where there was none yet."""
        usual = slopes_question(state, self._config.walk)
        if self._config.base.privacy.unit == "client":
            return by_news(usual, state, cohort)
        asked: list[tuple[SlopesInPlace, Sequence[int]]] = []
        for compare, some in by_comparison(state.claims, cohort):
            question = RecordSlopesInPlace(
                news=usual.news,
                settings=usual.settings,
                clip_norm=self._config.clip_norm,
                compare=compare,
                report=self._config.base.privacy.report_shortened,
                noise_source=self._config.base.privacy.samples_from,
            )
            asked += by_news(question, state, some)
        return asked


def _among(plan: RoundPlan, claims: Claims) -> RoundPlan:
    """Return the plan with those of the cohort that take part; raises TooFewAnswers for none."""
    members = set(claims.members)
    cohort = [client for client in plan.cohort if client in members]
    if not cohort:
        raise TooFewAnswers(f"round {plan.round_index}: none of the clients drawn takes part")
    return replace(plan, cohort=cohort)
