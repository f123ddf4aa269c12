"""FZooS with shared probes, a slope surrogate and a shared line search (fedzo's variant).

    1. slopes along m directions around x_r, asked of the cohort        (fedzo.surrogates.slopes)
    2. T virtual steps on the common surrogate of F                     (fedzo.surrogates.descent)
    3. values at some of those points, asked of the cohort; x_{r+1} is the one of lowest expected F
       given all rows, these values among them, or x_r

Grown from Shu et al., arXiv 2308.04077, algorithm 1. Differs: the gradient correction is exact,
gamma = 1, because all clients share the surrogate of F: no drift, no random features, no local step
that a client takes alone. Rows are slopes; clients are co-kriged. The directions of a round are the
same for all clients (shared) or each client's own (private), whichever would leave less doubt of
grad F for the same queries. The line search compares expected values, not observed ones, so noise
and the sampling of clients do not fool it. Where x is an image, gradients may be taken to be smooth
(lengthscale): then F(x) = h(L^T x) with K = L L^T of fedzo.surrogates.spatial, and the surrogate is
that of h. Why each part is there: docs/fzoos.md.

Queries a client and round: m + the stops of the line search (4), and 1 where x_r was not asked of
this cohort before. Floats up as many as queries; down d + 1 and d a stop. Server: a few r^3 / 3 +
r^2 d for r = max_rows.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.protocol.questions.probes import Probed, Probes
from fedzo.protocol.questions.values import Values, ValuesTold
from fedzo.surrogates.descent import virtual_steps
from fedzo.surrogates.heterogeneity import heterogeneity
from fedzo.surrogates.slope_geometry import centered, geometry
from fedzo.surrogates.slope_posterior import SlopePosterior, explained_variance
from fedzo.surrogates.slopes import (
    JITTER,
    SlopeRows,
    join_rows,
    no_rows,
    rows_between,
)
from fedzo.surrogates.spatial import SpatialPrior
from strategies.core.asking import Heard, ask
from strategies.core.robust import agree
from strategies.core.rounds import Round, RoundPlan
from strategies.surrogate.fzoos_config import FZooSConfig
from strategies.surrogate.fzoos_state import Anchor, Design, SlopeState
from strategies.surrogate.probe_ends import probe_ends
from strategies.surrogate.slope_config import ENOUGH_DIRECTIONS


class SlopeSearch:
    """The rounds of `variant = "improved"`."""

    def __init__(self, config: FZooSConfig) -> None:
        self._config = config

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> SlopeState:
        config = self._config
        prior = config.slopes.first_prior(len(x))
        nobody = torch.empty(0, dtype=torch.int64)
        anchor = Anchor(clients=nobody, values=nobody.double(), point=0)
        rows = no_rows(x.double())
        step = config.slopes.initial_step
        return SlopeState(x=x, rows=rows, walked=rows, prior=prior, anchor=anchor, step=step)

    def round(self, state: SlopeState, plan: RoundPlan) -> Round[SlopeState]:
        design = self._design(state, plan)
        probes = self._probes(state, plan, design.first)
        heard = yield from ask(probes, plan.cohort)
        assert heard.said.values is not None
        if heard.said.values.shape[1] == 0:
            return state
        state, posterior = self._learn(state, plan, design, probes, heard)
        space = self._space(state, plan)
        path = virtual_steps(
            lambda z: space.color(posterior.gradient(space.adjoint(z))),
            state.x.double(),
            state.step,
            rule=self._config.slopes.step_rule,
            stops=self._config.slopes.stops(),
            lower=plan.lower,
            upper=plan.upper,
        ).to(state.x)
        answers = yield from ask(Values(x=path), heard.clients)
        if answers.said.values.shape[1] == 0:
            return state
        return self._search(state, plan, posterior, path, answers)

    def _design(self, state: SlopeState, plan: RoundPlan) -> Design:
        """Return one block of directions that all clients probe this round, or one for each.

        A private slope tells 1 / (1 + rho) of what a shared one tells, and there are as many more
        of them as clients, so from some rho on they need not be looked at, nor where a single round
        of them would not fit into memory.
        """
        config, clients = self._config, len(plan.cohort)
        shared, private = (self._blocks(state, count) for count in (1, clients))
        if not config.robust.rule.is_mean:
            return shared
        if config.slopes.design != "auto" or clients == 1:
            return private if config.slopes.design == "private" else shared
        if (plan.round_index - 1) % config.slopes.shared_every == 0:
            return shared
        if clients * self._count(state) > config.slopes.max_rows:
            return shared
        if clients <= config.slopes.private_gain * (1 + state.prior.rho):
            return shared
        shared, private = (self._looked_at(state, plan, d.first) for d in (shared, private))
        return shared if config.slopes.private_gain * shared.told >= private.told else private

    def _blocks(self, state: SlopeState, count: int) -> Design:
        return Design(state.next_row + self._count(state) * torch.arange(count))

    def _looked_at(self, state: SlopeState, plan: RoundPlan, first: Int[Tensor, " b"]) -> Design:
        """Return a design with what would be explained of grad F(x) after a round of it."""
        unseen = torch.zeros(len(plan.cohort), self._count(state), dtype=torch.float64)
        cohort = torch.as_tensor(plan.cohort)
        rows = self._joined(state, self._rows(state, plan, first, unseen, cohort))
        seen = centered(rows, self._white(state, plan))
        shape = geometry(seen, seen)
        return Design(first, explained_variance(state.prior, seen, shape, plan.num_clients), shape)

    def _white(self, state: SlopeState, plan: RoundPlan) -> Float[Tensor, " d"]:
        """Return x in the coordinates of the rows."""
        return self._space(state, plan).adjoint(state.x.double())

    def _space(self, state: SlopeState, plan: RoundPlan) -> SpatialPrior:
        """Return the prior on the gradient; rows are kept in its white coordinates."""
        return self._config.slopes.space(len(state.x), image=plan.image)

    def _count(self, state: SlopeState) -> int:
        return min(self._config.slopes.num_directions, len(state.x))

    def _probes(self, state: SlopeState, plan: RoundPlan, first: Int[Tensor, " b"]) -> Probes:
        known = torch.equal(state.anchor.clients, torch.as_tensor(plan.cohort))
        return Probes(
            x=state.x,
            first_row=first.expand(len(plan.cohort)).clone(),
            num_directions=self._count(state),
            mu=self._config.slopes.probe_length(len(state.x)),
            lengthscale=self._space(state, plan).lengthscale,
            base=not known,
        )

    def _learn(
        self,
        state: SlopeState,
        plan: RoundPlan,
        design: Design,
        probes: Probes,
        heard: Heard[Probed],
    ) -> tuple[SlopeState, SlopePosterior]:
        """Turn the answers into rows, refit the prior where that is due, and condition it."""
        state, clients, changes = self._changes(state, plan, probes, heard)
        first, used = design.first, len(design.first) * self._count(state)
        if len(first) > 1:
            first = first[torch.isin(torch.as_tensor(plan.cohort), clients)]
        rows = self._joined(state, self._rows(state, plan, first, changes, clients))
        prior = state.prior
        measured = state.rho_measured
        if len(first) == 1 < len(clients) and changes.shape[1] >= ENOUGH_DIRECTIONS:
            prior = replace(prior, rho=heterogeneity(changes, plan.num_clients))
            measured = True
        x = self._white(state, plan)
        seen = centered(rows, x)
        as_planned = clients.tolist() == list(plan.cohort) and not probes.base
        shape = (design.shape if as_planned else None) or geometry(seen, seen)
        posterior = self._config.slopes.posterior(prior, seen, shape, plan, measured=measured)
        state = replace(
            state,
            rows=rows,
            walked=no_rows(x),
            prior=posterior.prior,
            rho_measured=measured,
            next_row=state.next_row + used,
            next_point=state.next_point + used,
        )
        return state, posterior

    def _changes(
        self, state: SlopeState, plan: RoundPlan, probes: Probes, heard: Heard[Probed]
    ) -> tuple[SlopeState, Int[Tensor, " n"], Float[Tensor, "n m"]]:
        """Return the state with what was answered at x, and whose changes from there agree."""
        assert heard.said.values is not None
        values = heard.said.values.double()
        clients = torch.as_tensor(heard.clients)
        anchor = state.anchor.of(clients)
        if probes.base:
            anchor = Anchor(clients=clients, values=values[:, 0], point=state.next_point)
            values = values[:, 1:]
        changes, kept = agree(
            values - anchor.values.unsqueeze(1), self._config.robust, plan, purpose="slopes"
        )
        state = replace(state, anchor=anchor, next_point=state.next_point + 1)
        return state, clients[kept], changes

    def _rows(
        self,
        state: SlopeState,
        plan: RoundPlan,
        first: Int[Tensor, " b"],
        changes: Float[Tensor, "n m"],
        clients: Int[Tensor, " n"],
    ) -> SlopeRows:
        """Return the rows of value changes along the blocks that start at the basis rows `first`.

        One block belongs to all clients together, several to one client each.
        """
        m = changes.shape[1]
        x, ends = probe_ends(
            state.x,
            first,
            m,
            length=self._config.slopes.probe_length(len(state.x)),
            space=self._space(state, plan),
            plan=plan,
        )
        together = len(first) == 1
        numbers = torch.arange(len(ends))
        return rows_between(
            x.expand_as(ends),
            ends,
            changes.mean(dim=0) if together else changes.flatten(),
            owners=clients.expand(m, -1) if together else clients.repeat_interleave(m).unsqueeze(1),
            start=torch.full_like(numbers, state.anchor.point),
            end=state.next_point + numbers,
        )

    def _joined(self, state: SlopeState, fresh: SlopeRows) -> SlopeRows:
        """Return the newest rows once these have come."""
        return join_rows([state.rows, state.walked, fresh], most=self._config.slopes.max_rows)

    def _search(
        self,
        state: SlopeState,
        plan: RoundPlan,
        posterior: SlopePosterior,
        path: Float[Tensor, "s d"],
        answers: Heard[ValuesTold],
    ) -> SlopeState:
        """Add the values along the path to the rows, and move to the lowest expected one."""
        clients = torch.as_tensor(answers.clients)
        values = answers.said.values.double()
        base = state.anchor.of(clients)
        points = torch.cat([state.x.unsqueeze(0), path]).double()
        points = self._space(state, plan).adjoint(points)
        steps = torch.cat([base.values.unsqueeze(1), values], dim=1).diff(dim=1)
        steps, kept = agree(steps, self._config.robust, plan, purpose="line search")
        changes = steps.mean(dim=0)
        numbers = torch.tensor([base.point, *range(state.next_point, state.next_point + len(path))])
        fresh = rows_between(
            points[:-1],
            points[1:],
            changes,
            owners=clients[kept].expand(len(path), -1),
            start=numbers[:-1],
            end=numbers[1:],
        )
        posterior = posterior.extended(fresh, most=self._config.slopes.max_rows)
        expected = posterior.change(points[:-1], points[1:]).cumsum(dim=0)
        best = int(expected.argmin())
        state = replace(state, walked=fresh, next_point=state.next_point + len(path))
        if float(expected[best]) >= -JITTER * float(changes.abs().max()):
            return replace(state, step=max(self._config.slopes.least_step(), state.step / 4))
        anchor = Anchor(clients=clients, values=values[:, best], point=int(numbers[best + 1]))
        step = self._next_step(state.step, best, len(path))
        return replace(state, x=path[best], anchor=anchor, step=step)

    def _next_step(self, step: float, best: int, count: int) -> float:
        """Return a longer step where the last point was best, a shorter one where the first was."""
        if best == count - 1:
            return min(self._config.slopes.max_step, 1.5 * step)
        return max(self._config.slopes.least_step(), step / 2) if best == 0 else step
