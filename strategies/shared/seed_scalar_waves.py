"""Seed and scalar that does not wait: late slopes along the directions of their own step.

    client i, asked in round v:  slopes s_ik along u_vk, k = 1, ..., K m, from x_v
                                 (strategies.shared.seed_scalar)
    FedBuff:   x <- x - (lr / (n m)) sum_i s(tau_i) sum_k s_ik u_vk           n answers that came
    FedAsync:  x <- x + a (x_v - x - (lr / m) sum_k s_ik u_vk),   a = alpha s(tau)

Nguyen et al., "FedBuff", AISTATS 2022, algorithm 1, and Xie et al., "FedAsync", 2019, algorithm 1,
with the numbers of Li et al., "DeComFL", ICLR 2025, in the place of vectors. `participation` says
how many clients M work at a time. With refill=step and a buffer of all, FedBuff is seed_scalar bit
for bit.
Shapes: log [r, 1 + m], a row a step that something came of: its number (v - 1) K + k, and
coefficients.
Numbers a client and answer: K m up; down what it has not been told of the log, 1 + m a row. The
server's step has K rows for each round that answers are about, in FedAsync also one for each step
since. Queries: K times the scheme's, counted when a client begins.

Differs from the papers: x_v - x is what the log has added since, so no x is kept; a client whose
answer is lost is told the whole log when it is asked again; a module that is shared with clients
that have gone on is asked back, exact but for rounding, which happens by arrival alone. There is no
robust rule: slopes along different directions do not compare.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.config import require
from fedzo.estimation.replay import Log
from fedzo.parts import composed, part
from fedzo.protocol.questions.in_place import InPlaceConfig, SlopesInWave
from fedzo.protocol.questions.probes import Probed
from fedzo.protocol.wave import Refill
from strategies.averaging.staleness import StalenessConfig
from strategies.core.asking import Asking, LandedAnswers, wave
from strategies.core.base import RoundStrategy
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.wave_config import WaveConfig, require_open
from strategies.shared.seed_scalar import SeedScalarState, WalkConfig, by_news


@composed
class LateSlopesConfig:
    """Settings that both share; they need a clock, or answers by arrival (docs/time.md)."""

    rounds: RoundConfig = part(RoundConfig)
    walk: WalkConfig = part(WalkConfig)
    old: StalenessConfig = part(StalenessConfig)

    def __post_init__(self) -> None:
        require_open(self.rounds)


@composed
class FedBuffSeedScalarConfig:
    """Settings of FedBuff by seed and scalar."""

    late: LateSlopesConfig = part(LateSlopesConfig)
    waves: WaveConfig = part(WaveConfig)


@composed
class FedAsyncSeedScalarConfig:
    """Settings of FedAsync by seed and scalar; alpha: how much of a new answer becomes x."""

    late: LateSlopesConfig = part(LateSlopesConfig)
    alpha: float = 0.6

    def __post_init__(self) -> None:
        require(0 < self.alpha <= 1, "alpha", self.alpha, "above 0, at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class LateSlopesState(SeedScalarState):
    """With the rounds in which somebody at work was asked, and how long the log was then."""

    versions: Int[Tensor, " v"]
    lengths: Int[Tensor, " v"]

    def begun(self, version: int) -> int:
        """Return how long the log was in a round; the last is this one."""
        return int(self.lengths[torch.searchsorted(self.versions, version)])


class LateSlopes(RoundStrategy[LateSlopesState]):
    """Asks for slopes in waves; subclasses say what becomes of those that come."""

    asks_in_waves = True
    _refill: Refill = "arrival"

    def __init__(self, late: LateSlopesConfig, client: InPlaceConfig | None) -> None:
        self._late, self._client = late, client or InPlaceConfig()

    @property
    def rounds(self) -> RoundConfig:
        return self._late.rounds

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> LateSlopesState:
        nothing = torch.zeros(0, dtype=torch.int64)
        return LateSlopesState(
            dim=len(x),
            log=torch.empty(0, 1 + self._client.num_directions),
            settings=self._client,
            told=torch.zeros(num_clients, dtype=torch.int64),
            versions=nothing,
            lengths=nothing,
        )

    def round(self, state: LateSlopesState, plan: RoundPlan) -> Round[LateSlopesState]:
        now = plan.round_index
        here = replace(
            state,
            versions=torch.cat([state.versions, torch.tensor([now])]),
            lengths=torch.cat([state.lengths, torch.tensor([len(state.log)])]),
        )
        landed = yield from self._ask(here, plan)
        rows = torch.cat([here.log[:0], *self._rows(here, landed, now)])
        told, alive = state.told.clone(), here.versions >= landed.oldest
        told[list(landed.failed)] = 0
        ages = landed.staleness.tolist() if len(landed) else []
        for client, age in zip(landed.clients, ages, strict=True):
            told[client] = here.begun(now - age)
        return replace(
            here,
            log=torch.cat([here.log, rows]),
            told=told,
            versions=here.versions[alive],
            lengths=here.lengths[alive],
        )

    def _ask(self, state: LateSlopesState, plan: RoundPlan) -> Asking[LandedAnswers[Probed]]:
        walk = self._late.walk
        question = SlopesInWave(
            news=state.log,
            settings=state.settings,
            local_steps=walk.local_steps,
            local_lr=walk.local_lr or walk.rate.server_lr,
            step=self._first_step(plan.round_index),
        )
        landed = yield from wave(
            question,
            plan.cohort,
            until=self.steps_with(len(plan.cohort)),
            refill=self._refill,
            sort=lambda clients: by_news(question, state, clients),
        )
        return landed

    @abstractmethod
    def _rows(
        self, state: LateSlopesState, landed: LandedAnswers[Probed], now: int
    ) -> Sequence[Log]:
        """Return what is added to the log."""

    def _first_step(self, version: int) -> int:
        """Return the number of the first step whose directions belong to a round, of 1, 2, ..."""
        return (version - 1) * self._late.walk.local_steps

    def _along(self, slopes: Float[Tensor, " k"], version: int) -> Log:
        """Return rows of a step along slopes [K m] about the x of a round."""
        walk, m = self._late.walk, self._client.num_directions
        step = (-walk.rate.server_lr / m * slopes).float().view(-1, m)
        first = self._first_step(version)
        numbers = torch.arange(first, first + len(step), dtype=torch.float32)
        return torch.cat([numbers.unsqueeze(1), step], dim=1)


class FedBuffSeedScalar(LateSlopes):
    """Steps with every K-th answer."""

    def __init__(
        self, config: FedBuffSeedScalarConfig, *, client: InPlaceConfig | None = None
    ) -> None:
        super().__init__(config.late, client)
        self._waves, self._refill = config.waves, config.waves.refill

    def steps_with(self, cohort: int) -> int:
        return self._waves.until(cohort)

    def _rows(
        self, state: LateSlopesState, landed: LandedAnswers[Probed], now: int
    ) -> Sequence[Log]:
        if not len(landed):
            return []
        slopes, ages = landed.said.slopes, landed.staleness
        assert slopes is not None
        weighted = slopes * self._late.old.weights(ages).to(slopes).unsqueeze(1)
        rows = []
        for age in ages.unique().flip(0).tolist():
            of = weighted[ages == age]
            rows.append(self._along(of.mean(0) * (len(of) / len(landed)), now - age))
        return rows


class FedAsyncSeedScalar(LateSlopes):
    """Mixes in every answer."""

    def __init__(
        self, config: FedAsyncSeedScalarConfig, *, client: InPlaceConfig | None = None
    ) -> None:
        super().__init__(config.late, client)
        self._alpha = config.alpha

    def steps_with(self, cohort: int) -> int:
        return 1

    def _rows(
        self, state: LateSlopesState, landed: LandedAnswers[Probed], now: int
    ) -> Sequence[Log]:
        if not len(landed):
            return []
        slopes, [age] = landed.said.slopes, landed.staleness.tolist()
        assert slopes is not None
        share = self._alpha * float(self._late.old.weights(landed.staleness)[0])
        ahead = state.log[state.begun(now - age) :]
        numbers, place = ahead[:, 0].unique(return_inverse=True)
        added = ahead.new_zeros(len(numbers), ahead.shape[1] - 1)
        added.index_add_(0, place, ahead[:, 1:])
        back = torch.cat([numbers.unsqueeze(1), -share * added], dim=1)
        return [back, self._along(share * slopes[0], now - age)]
