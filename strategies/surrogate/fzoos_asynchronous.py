"""FZooS whose server does not wait: it learns from answers about points that it has left.

    1. x_r and its m directions go to whoever is free; the round goes on with the next K answers
    2. an answer of client i about x_v, v <= r, is m slopes of f_i around x_v, and, where i has
       answered about x_w before, the slope of f_i from x_w to x_v (max_rows / 4 of these at most)
    3. x_{r+1}: T virtual steps on the surrogate of F given all rows, from the best of the last
       points, by expected values

A late answer is an exact observation at the point that it is about, so nothing is discounted; how
much it says of grad F(x_r) is the surrogate's to know. There is no line search: what clients answer
at later points tells how good a step was. Rows and surrogate are those of
strategies.surrogate.fzoos_improved; fedzo's own, after Shu et al., arXiv 2308.04077, algorithm 1,
and Nguyen et al., AISTATS 2022, algorithm 1. Queries an answer: m + 1. Floats up m + 1, down d + 1.
Shapes: x [d], kept [v, d], rows [r, d].
"""

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.parts import composed, part
from fedzo.protocol.questions.probes import Probed, Probes
from fedzo.protocol.questions.surrogate import SurrogateConfig
from fedzo.surrogates.descent import virtual_steps
from fedzo.surrogates.heterogeneity import heterogeneity
from fedzo.surrogates.slope_geometry import centered, geometry
from fedzo.surrogates.slope_posterior import SlopePosterior
from fedzo.surrogates.slopes import SlopeRows, join_rows, no_rows, rows_between
from fedzo.used_with import UsedWith, one_of
from strategies.core.asking import LandedAnswers, wave
from strategies.core.configured import ConfiguredStrategy
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.wave_config import WaveConfig, require_open
from strategies.surrogate.fzoos_state import AsynchronousState
from strategies.surrogate.probe_ends import probe_ends
from strategies.surrogate.slope_config import ENOUGH_DIRECTIONS, SlopeConfig

KEPT = 32
"""Points that are remembered though nobody works on them any more."""
LOOKED_AT = 8
"""Of the last points, those among which the best is gone on from."""
_GROWS, _SHRINKS = 1.5, 0.5
"""Of a step: when the newest of these is the best, and when it is not."""


@composed
class AsyncFZooSConfig:
    """Settings of asynchronous FZooS; it needs a clock, or answers by arrival.

    Directions are private where an answer's own would explain private_gain as much.
    """

    rounds: RoundConfig = part(RoundConfig)
    waves: WaveConfig = part(WaveConfig)
    slopes: SlopeConfig = part(SlopeConfig, num_directions=10)
    USED_WITH: ClassVar[UsedWith] = {
        **dict.fromkeys(("shared_every", "private_gain"), one_of("design", "auto")),
        "client.*": one_of("strategy", "fzoos"),
    }

    def __post_init__(self) -> None:
        require_open(self.rounds)


class AsyncFZooS(ConfiguredStrategy[AsyncFZooSConfig, SurrogateConfig, AsynchronousState]):
    """Steps with every K-th answer, whatever point it is about."""

    asks_in_waves = True
    needs_own_x = True
    client_config = SurrogateConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> AsynchronousState:
        nobody = torch.empty(0, dtype=torch.int64)
        return AsynchronousState(
            x=x,
            rows=no_rows(x.double()),
            prior=self._config.slopes.first_prior(len(x)),
            step=self._config.slopes.initial_step,
            rho_measured=False,
            rounds=nobody,
            kept=x.new_empty(0, len(x)),
            private=nobody.bool(),
            clients=nobody,
            asked=nobody,
            values=nobody.double(),
        )

    def round(self, state: AsynchronousState, plan: RoundPlan) -> Round[AsynchronousState]:
        config, now = self._config, plan.round_index
        until = config.waves.until(len(plan.cohort))
        private = self._is_private(state, plan, until)
        probes = Probes(
            x=state.x,
            first_row=self._first_rows(state, plan, now, private=private),
            num_directions=self._count(state),
            mu=config.slopes.probe_length(len(state.x)),
            lengthscale=config.slopes.space(len(state.x), image=plan.image).lengthscale,
            base=True,
        )
        landed = yield from wave(probes, plan.cohort, until=until, refill=config.waves.refill)
        state = replace(
            state,
            rounds=torch.cat([state.rounds, torch.tensor([now])]),
            kept=torch.cat([state.kept, state.x.unsqueeze(0)]),
            private=torch.cat([state.private, torch.tensor([private])]),
        )
        posterior = None
        if len(landed):
            state, posterior = self._learn(state, plan, landed)
        if posterior is not None:
            state = self._move(state, plan, posterior)
        alive = (state.rounds >= landed.oldest) | (state.rounds > now - KEPT)
        return replace(
            state,
            rounds=state.rounds[alive],
            kept=state.kept[alive],
            private=state.private[alive],
        )

    def _count(self, state: AsynchronousState) -> int:
        return min(self._config.slopes.num_directions, len(state.x))

    def _is_private(self, state: AsynchronousState, plan: RoundPlan, until: int) -> bool:
        """Return whether each client has directions of its own this round."""
        config = self._config
        if config.slopes.design != "auto":
            return config.slopes.design == "private"
        if (plan.round_index - 1) % config.slopes.shared_every == 0:
            return False
        if until * self._count(state) > config.slopes.max_rows:
            return False
        return until > config.slopes.private_gain * (1 + state.prior.rho)

    def _first_rows(
        self, state: AsynchronousState, plan: RoundPlan, now: int, *, private: bool
    ) -> Int[Tensor, " n"]:
        """Return the first basis row of every client, one for all unless directions are private."""
        m, clients = self._count(state), plan.num_clients
        own = m * torch.arange(clients) if private else torch.zeros(1, dtype=torch.int64)
        return (own + now * m * clients).expand(clients)

    def _learn(
        self, state: AsynchronousState, plan: RoundPlan, landed: LandedAnswers[Probed]
    ) -> tuple[AsynchronousState, SlopePosterior | None]:
        """Turn answers into rows, refit the prior where that is due, and condition it.

        Answers to rounds that were spoilt are left out: nobody has kept what was asked in them.
        """
        config, x = self._config, state.x
        assert landed.said.values is not None
        asked = plan.round_index - landed.staleness
        places = torch.searchsorted(state.rounds, asked)
        kept = state.rounds[places] == asked
        values, places = landed.said.values.double()[kept], places[kept]
        clients = torch.as_tensor(landed.clients)[kept]
        if not len(clients):
            return state, None
        prior, measured = state.prior, state.rho_measured
        fresh = []
        for place in places.unique().tolist():
            those = places == place
            changes = values[those, 1:] - values[those, :1]
            fresh.append(self._around(state, plan, place, clients[those], changes))
            shared = not bool(state.private[place])
            if shared and len(changes) > 1 and changes.shape[1] >= ENOUGH_DIRECTIONS:
                prior = replace(prior, rho=heterogeneity(changes, plan.num_clients))
                measured = True
        state, between = self._between(state, plan, clients, places, values[:, 0])
        most = config.slopes.max_rows
        rows = join_rows([state.rows, *fresh, between.newest(most // 4)], most=most)
        space = config.slopes.space(len(x), image=plan.image)
        seen = centered(rows, space.adjoint(x.double()))
        shape = geometry(seen, seen)
        posterior = config.slopes.posterior(prior, seen, shape, plan, measured=measured)
        state = replace(state, rows=rows, prior=posterior.prior, rho_measured=measured)
        return state, posterior

    def _around(
        self,
        state: AsynchronousState,
        plan: RoundPlan,
        place: int,
        clients: Int[Tensor, " k"],
        changes: Float[Tensor, "k m"],
    ) -> SlopeRows:
        """Return the rows of probes around an earlier point: averaged where all had the same."""
        config, m = self._config, changes.shape[1]
        now, private = int(state.rounds[place]), bool(state.private[place])
        first = self._first_rows(state, plan, now, private=private)[clients]
        space = config.slopes.space(len(state.x), image=plan.image)
        base, ends = probe_ends(
            state.kept[place],
            first if private else first[:1],
            m,
            space=space,
            length=config.slopes.probe_length(len(state.x)),
            plan=plan,
        )
        point = self._point(state, plan, now)
        owners = clients.repeat_interleave(m).unsqueeze(1) if private else clients.expand(m, -1)
        numbers = (
            (m * clients.unsqueeze(1) + torch.arange(m)).flatten() if private else torch.arange(m)
        )
        return rows_between(
            base.expand_as(ends),
            ends,
            changes.flatten() if private else changes.mean(dim=0),
            owners=owners,
            start=torch.full((len(ends),), point),
            end=point + 1 + numbers,
        )

    def _point(self, state: AsynchronousState, plan: RoundPlan, now: int) -> int:
        """Return the number of a round's point; those of its probes follow."""
        return now * (1 + self._count(state) * plan.num_clients)

    def _between(
        self,
        state: AsynchronousState,
        plan: RoundPlan,
        clients: Int[Tensor, " k"],
        places: Int[Tensor, " k"],
        values: Float[Tensor, " k"],
    ) -> tuple[AsynchronousState, SlopeRows]:
        """Return the rows between two points of a client's, and remember the later one."""
        space = self._config.slopes.space(len(state.x), image=plan.image)
        points = space.adjoint(state.kept.double())
        known = (state.clients, state.asked, state.values)
        last = {
            c: (asked, value) for c, asked, value in zip(*map(Tensor.tolist, known), strict=True)
        }
        at = {round_index: i for i, round_index in enumerate(state.rounds.tolist())}
        pairs = []
        for client, place, value in zip(
            clients.tolist(), places.tolist(), values.tolist(), strict=True
        ):
            before = last.get(client)
            if before is not None and before[0] in at:
                pairs.append((at[before[0]], place, value - before[1], client))
            last[client] = (int(state.rounds[place]), value)
        told = sorted(last.items())
        state = replace(
            state,
            clients=torch.tensor([client for client, _ in told]),
            asked=torch.tensor([asked for _, (asked, _) in told]),
            values=torch.tensor([value for _, (_, value) in told], dtype=torch.float64),
        )
        if not pairs:
            return state, no_rows(state.x.double())
        a, b, changes, owners = zip(*pairs, strict=True)
        numbers = [
            [self._point(state, plan, int(state.rounds[i])) for i in ends] for ends in (a, b)
        ]
        return state, rows_between(
            points[list(a)],
            points[list(b)],
            torch.tensor(changes, dtype=torch.float64),
            owners=torch.tensor(owners).unsqueeze(1),
            start=torch.tensor(numbers[0]),
            end=torch.tensor(numbers[1]),
        )

    def _move(
        self, state: AsynchronousState, plan: RoundPlan, posterior: SlopePosterior
    ) -> AsynchronousState:
        """Go on from the best of the last points, and step shorter where that is not the newest."""
        config = self._config
        space = config.slopes.space(len(state.x), image=plan.image)
        recent = state.kept[-LOOKED_AT:].double()
        best = _lowest(posterior, space.adjoint(recent))
        step = state.step
        if best == len(recent) - 1:
            step = min(config.slopes.max_step, _GROWS * step)
        else:
            step = max(config.slopes.least_step(), _SHRINKS * step)
        path = virtual_steps(
            lambda z: space.color(posterior.gradient(space.adjoint(z))),
            recent[best],
            step,
            rule=config.slopes.step_rule,
            stops=config.slopes.stops(),
            lower=plan.lower,
            upper=plan.upper,
        )
        walked = torch.cat([recent[best].unsqueeze(0), path])
        x = walked[_lowest(posterior, space.adjoint(walked))]
        return replace(state, x=x.to(state.x), step=step)


def _lowest(posterior: SlopePosterior, points: Float[Tensor, "s d"]) -> int:
    """Return the point of a walk whose expected value is the lowest."""
    expected = posterior.change(points[:-1], points[1:]).cumsum(dim=0)
    return int(torch.cat([expected.new_zeros(1), expected]).argmin())
