"""FedBuff by seed and scalar: late slopes go along the directions of their own step.

    client i, asked in round v:  slopes s_ik along u_vk, k = 1, ..., K m, from x_v
                                 (strategies.shared.seed_scalar)
    server:    x <- x - (lr / (n m)) sum_i s(tau_i) sum_k s_ik u_vk           n answers that came

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022, algorithm
1, with the numbers of Li et al., "DeComFL", ICLR 2025, in the place of vectors. `participation`
says how many clients work at a time. With refill=step and a buffer of all it is seed_scalar bit for
bit, where something comes of every round; with buffer=1 it is asynchronous SGD.
Shapes: log [r, 1 + m], a row a step that something came of: its number (v - 1) K + k, and
coefficients.
Numbers a client and answer: K m up; down what it has not been told of the log, 1 + m a row, and K
rows for each round that a server's step has answers of. Queries: K times the scheme's, counted when
a client begins.

Differs from the papers: a client whose answer is lost is told the whole log when it is asked again;
a module that is shared with clients that have gone on is asked back, exact but for rounding, which
happens by arrival alone. There is no robust rule: slopes along different directions do not compare.
There is no FedAsync either: mixing in x_v takes back a part of all that has come since, and so,
step by step, a number for every direction ever asked: a log of 8,542 rows after 100 steps, of
FedBuff's 368.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.errors import RunError
from fedzo.estimation.replay import Log
from fedzo.parts import composed, part
from fedzo.protocol.questions.in_place import InPlaceConfig, SlopesInWave
from fedzo.protocol.questions.probes import Probed
from strategies.averaging.staleness import StalenessConfig
from strategies.core.asking import Asking, LandedAnswers, wave
from strategies.core.configured import ConfiguredStrategy
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.wave_config import WaveConfig, require_open
from strategies.shared.seed_scalar import SeedScalarState, WalkConfig, by_news

_MOST = 1 << 24
"""Steps whose numbers are exact in float32."""


@composed
class FedBuffSeedScalarConfig:
    """Settings; it needs a clock, or answers by arrival (docs/time.md)."""

    rounds: RoundConfig = part(RoundConfig)
    walk: WalkConfig = part(WalkConfig)
    old: StalenessConfig = part(StalenessConfig)
    waves: WaveConfig = part(WaveConfig)

    def __post_init__(self) -> None:
        require_open(self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedBuffSeedScalarState(SeedScalarState):
    """With the rounds in which somebody at work was asked, and how long the log was then."""

    versions: Int[Tensor, " v"]
    lengths: Int[Tensor, " v"]

    def begun(self, version: int) -> int:
        """Return how long the log was in a round.

        One that was spoilt is not among the versions, and added nothing: the next has its length.
        """
        return int(self.lengths[torch.searchsorted(self.versions, version)])


class FedBuffSeedScalar(
    ConfiguredStrategy[FedBuffSeedScalarConfig, InPlaceConfig, FedBuffSeedScalarState]
):
    """Steps with every K-th answer."""

    asks_in_waves = True
    client_config = InPlaceConfig

    def steps_with(self, cohort: int) -> int:
        return self._config.waves.until(cohort)

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedBuffSeedScalarState:
        nothing = torch.zeros(0, dtype=torch.int64)
        return FedBuffSeedScalarState(
            dim=len(x),
            log=torch.empty(0, 1 + self._client.num_directions),
            settings=self._client,
            told=torch.zeros(num_clients, dtype=torch.int64),
            versions=nothing,
            lengths=nothing,
        )

    def round(
        self, state: FedBuffSeedScalarState, plan: RoundPlan
    ) -> Round[FedBuffSeedScalarState]:
        now = plan.round_index
        here = replace(
            state,
            versions=torch.cat([state.versions, torch.tensor([now])]),
            lengths=torch.cat([state.lengths, torch.tensor([len(state.log)])]),
        )
        landed = yield from self._ask(here, plan)
        rows, told = self._rows(landed, now), state.told.clone()
        ages = landed.staleness.tolist() if len(landed) else []
        for client, age in zip(landed.clients, ages, strict=True):
            told[client] = here.begun(now - age)
        told[list(landed.failed)] = 0  # a client may have answered, begun anew, and failed
        alive = here.versions >= landed.oldest
        return replace(
            here,
            log=torch.cat([here.log, *rows]),
            told=told,
            versions=here.versions[alive],
            lengths=here.lengths[alive],
        )

    def _ask(self, state: FedBuffSeedScalarState, plan: RoundPlan) -> Asking[LandedAnswers[Probed]]:
        walk = self._config.walk
        question = SlopesInWave(
            news=state.log,
            settings=state.settings,
            local_steps=walk.local_steps,
            local_lr=walk.client_lr,
            step=self._first_step(plan.round_index),
        )
        landed = yield from wave(
            question,
            plan.cohort,
            until=self.steps_with(len(plan.cohort)),
            refill=self._config.waves.refill,
            sort=lambda clients: by_news(question, state, clients),
        )
        return landed

    def _rows(self, landed: LandedAnswers[Probed], now: int) -> Sequence[Log]:
        """Return what is added to the log: rows for each round that answers are about."""
        if not len(landed):
            return []
        slopes, ages = landed.said.slopes, landed.staleness
        assert slopes is not None
        weighted = slopes * self._config.old.weights(ages).to(slopes).unsqueeze(1)
        rows = []
        for age in ages.unique().flip(0).tolist():
            of = weighted[ages == age]
            rows.append(self._along(of.mean(0) * (len(of) / len(landed)), now - age))
        return rows

    def _along(self, slopes: Float[Tensor, " k"], version: int) -> Log:
        """Return rows of a step along slopes [K m] about the x of a round."""
        m, first = self._client.num_directions, self._first_step(version)
        step = (-self._config.walk.rate.server_lr / m * slopes).float().view(-1, m)
        if first + len(step) > _MOST:
            raise RunError(f"a log has numbers for {_MOST:,} steps, and they are used up")
        numbers = torch.arange(first, first + len(step), dtype=torch.float32)
        return torch.cat([numbers.unsqueeze(1), step], dim=1)

    def _first_step(self, version: int) -> int:
        """Return the number of the first step whose directions belong to a round, of 1, 2, ..."""
        return (version - 1) * self._config.walk.local_steps
