"""DIFF2: private gradients from private changes of gradients.

    every T rounds:  v_r = mean_p (1 / n_p) sum_i clip(g_i(x_r), C1) + N(0, (z1 D1)^2 I)
    else:            v_r = v_{r-1} + mean_p (1 / n_p) sum_i clip(g_i(x_r) - g_i(x_{r-1}), C2 |dx|)
                           + N(0, (z2 D2)^2 I),     dx = x_r - x_{r-1}
    gd:              x_{r+1} = P(x_r - lr v_r)
    bvr_l_sgd:       x_{r+1} = P(y_K) of the client whose turn it is (clients.private.clipped_walk)

Murata & Suzuki, "DIFF2: Differential Private Optimization via Gradient Differences for Nonconvex
Distributed Learning", ICML 2023, algorithms 1 to 3. D1, D2 are the sensitivities of the averages
(fedzo.privacy.gaussian), 2 C / (n_min P) for one replaced record. The radius C2 |dx| is made of
published points, so it costs nothing. T = 1 is gradient descent with private gradients (DP-GD).
Shapes: x, v [d]. Floats a client: d down (2 d for changes), d up, or m slopes. Queries: none;
zeroth-order 2 m at a restart, 4 m else (central), every one of them with all records behind it.

Differs from the published code: n1 = ceil(R / T) restarts are accounted for; every record weighs
the same; the noise can be calibrated tightly; the step may decay over the rounds
(`lr_decay=linear`), which is free, as all is that uses v alone. Zeroth-order: C2 (|dx| + mu sqrt d)
bounds the changes of slopes, for their error does not vanish with dx.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.estimation.bases import Blocks
from fedzo.objectives.oracle import project
from fedzo.optimizers import Optimizer, OptimizerState, make_optimizer
from fedzo.privacy.accountant import EVERYBODY, Ledger, Sampling
from fedzo.protocol.questions.private import Clipped, ClippedConfig, ClippedWalk
from strategies.core.asking import ask, ask_together
from strategies.core.configured import ConfiguredStrategy
from strategies.core.rounds import Round, RoundPlan
from strategies.core.server_step import server_step
from strategies.core.spending import Spent
from strategies.private.diff2_config import DIFF2Config
from strategies.private.diff2_noise import (
    Multipliers,
    Plan,
    counted,
    paper_multipliers,
    releases,
    tight_multipliers,
)
from strategies.private.gradient_filter import Noisy, renewed
from strategies.private.privacy import Release, charged, private_mean, share_shortened
from strategies.private.record_bounds import (
    Claims,
    admitted,
    after_answers,
    after_comparison,
    compared_first,
)


@dataclass(frozen=True, slots=True)
class DIFF2State:
    """x, where v was asked, v, rounds so far, and what is known and spent.

    variance: of the noise in a coordinate of v. claims: of records, and the bound on them. turns:
    walks so far. multipliers: of the noise, calibrated in the first round for that run.
    """

    x: Float[Tensor, " d"]
    asked: Float[Tensor, " d"]
    gradient: Float[Tensor, " d"]
    variance: float
    moments: OptimizerState
    age: int
    turns: int
    claims: Claims
    multipliers: Multipliers
    privacy: Spent

    @property
    def records(self) -> int:
        """The bound on the records of a client that takes part, 0 before it is known."""
        return self.claims.bound

    @property
    def left_out(self) -> Mapping[int, str]:
        """Return the clients that say a number of records for which the noise is not made."""
        return self.claims.left_out


class DIFF2(ConfiguredStrategy[DIFF2Config, ClippedConfig, DIFF2State]):
    """Private gradients, renewed by their changes."""

    needs_own_x = True
    client_config = ClippedConfig

    def __init__(self, config: DIFF2Config, *, client: ClippedConfig | None = None) -> None:
        super().__init__(config, client=client)
        for setting, usual in (("routine", "gd"), ("memory", "stage")):
            if self._slopes and getattr(config, setting) != usual:
                raise ConfigError(
                    f"strategy.{setting}={getattr(config, setting)} needs client.gradient=exact; or"
                    f" set it to {usual}"
                )

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> DIFF2State:
        unknown, zero = Multipliers(0.0, 0.0), torch.zeros_like(x)
        reports = self._config.base.privacy.report_shortened
        spent = Spent(Ledger.empty(), shortened=0.0 if reports else None)
        claims = Claims.none(num_clients)
        return DIFF2State(x, x, zero, 0.0, self._optimizer.init(x), 0, 0, claims, unknown, spent)

    def round(self, state: DIFF2State, plan: RoundPlan) -> Round[DIFF2State]:
        claims = yield from admitted(state.claims, self._config.base, plan)
        if not state.records:
            state = replace(state, multipliers=self._calibrated(plan, claims.bound))
        state, plan = replace(state, claims=claims), replace(plan, cohort=claims.members)
        due = self._due(state)
        spent = self._charged(state, due, plan)
        question = self._question(state, plan, due)
        heard = yield from ask_together(compared_first(question, state.claims, plan.cohort))
        if self._config.base.privacy.noise == "clients":
            claims = after_answers(claims, plan.cohort, heard.clients)
            if len(heard) < len(plan.cohort):  # too little noise in the sum: the round is void
                return replace(state, claims=claims)
            state = replace(state, claims=claims)
        told = heard.said.tensors()
        if not told[next(iter(due))].shape[1]:
            return state
        found = {
            name: self._found(told[name], release, question, plan, name)
            for name, release in due.items()
        }
        gradient, variance = renewed(state.gradient, state.variance, **found)
        std = next(iter(found.values())).std
        state = replace(
            state,
            asked=state.x,
            gradient=gradient,
            variance=variance,
            age=state.age + 1,
            claims=after_comparison(state.claims, heard.clients),
            privacy=replace(spent, noise_std=std, shortened=share_shortened(heard.said.shortened)),
        )
        if self._config.routine == "bvr_l_sgd":
            return (yield from self._walked(state, plan))
        return self._moved(state, plan)

    def published(self, state: DIFF2State) -> Float[Tensor, " d"]:
        return state.gradient

    def stretch(self, state: DIFF2State) -> float:
        slopes = min(len(state.x), self._client.num_directions)
        return math.sqrt(len(state.x) / slopes) if self._slopes else 1.0

    def silenced(self, state: DIFF2State) -> DIFF2State:
        return replace(state, multipliers=Multipliers(0.0, 0.0))

    def _moved(self, state: DIFF2State, plan: RoundPlan) -> DIFF2State:
        config = self._config
        left = 1 - (plan.round_index - 1) / max(1, plan.num_rounds)
        lr = config.server_lr * (left if config.lr_decay == "linear" else 1)
        return server_step(state, state.gradient, plan, self._optimizer, lr)

    def _walked(self, state: DIFF2State, plan: RoundPlan) -> Round[DIFF2State]:
        """Let the client whose turn it is walk along v; x stays where it does not answer.

        v was told to it then, so the round must not count as spoilt: what it released is charged.
        """
        config = self._config
        client = state.turns % plan.num_clients
        if client not in plan.cohort:
            return replace(state, turns=state.turns + 1)
        walk = ClippedWalk(
            x=state.x,
            direction=state.gradient,
            settings=self._client,
            local_steps=config.local_steps,
            local_lr=config.local_lr,
            local_batch=config.local_batch,
            local_clip=config.local_clip,
            local_noise=state.multipliers.local,
            noise_source=self._config.base.privacy.samples_from,
        )
        heard = yield from ask(walk, [client], optional=True)
        state = replace(state, turns=state.turns + 1)
        if not heard.clients:
            return state
        x = project(state.x + heard.said.update[0], plan.lower, plan.upper)
        return replace(state, x=x)

    def _calibrated(self, plan: RoundPlan, records: int) -> Multipliers:
        """Return the noise multipliers for the rounds of this run."""
        config, privacy = self._config, self._config.base.privacy
        whole = self._plan(plan.num_rounds, plan.num_clients, records).times(plan.num_problems)
        if privacy.noise_multiplier:
            z = privacy.noise_multiplier
            return counted(whole, privacy, Multipliers(z, z, z))
        if not privacy.claims:
            return Multipliers(0.0, 0.0)
        if config.calibration == "paper":
            return paper_multipliers(whole, privacy)
        return tight_multipliers(whole, privacy, config.restart_share, config.local_share)

    def _plan(self, num_rounds: int, num_clients: int, records: int) -> Plan:
        config = self._config
        whole = releases(num_rounds, config.restart_period)
        if config.memory == "filter":
            whole = Plan(restarts=num_rounds, changes=max(0, num_rounds - 1))
        if config.routine == "gd":
            return whole
        turns = math.ceil(num_rounds / num_clients)
        return replace(
            whole, local=turns * (config.local_steps - 1), sampling=self._sampling(records)
        )

    def _sampling(self, records: int) -> Sampling:
        return Sampling(drawn=min(self._config.local_batch, records), population=records)

    def _due(self, state: DIFF2State) -> dict[str, Release]:
        """Return what is released in this round: a fresh gradient, its change, or both."""
        config, due = self._config, {}
        restart = state.age % config.restart_period == 0
        if not restart or (config.memory == "filter" and state.age):
            moved = float(torch.linalg.vector_norm((state.x - state.asked).double()))
            if self._slopes:
                moved += self._client.mu * len(state.x) ** 0.5
            clip_norm = config.difference_clip * moved if moved else 0.0
            due["change"] = Release(clip_norm, state.multipliers.change, state.records)
        if restart or config.memory == "filter":
            due["fresh"] = Release(config.clip_norm, state.multipliers.restart, state.records)
        return due

    def _charged(self, state: DIFF2State, due: Mapping[str, Release], plan: RoundPlan) -> Spent:
        """Return the ledger with all that this round publishes."""
        config = self._config
        if state.multipliers.restart == 0:
            return state.privacy.without_noise()
        releases = [(release.noise_multiplier, 1) for release in due.values()]
        spent = charged(state.privacy, self._config.base.privacy, releases)
        first_of_turn = config.routine == "bvr_l_sgd" and state.turns % plan.num_clients == 0
        walk = [(state.multipliers.local, config.local_steps - 1)] if first_of_turn else []
        counts = state.multipliers.samples_count
        sampling = self._sampling(state.records) if counts else EVERYBODY
        return charged(spent, self._config.base.privacy, walk, sampling)

    def _question(self, state: DIFF2State, plan: RoundPlan, due: Mapping[str, Release]) -> Clipped:
        privacy, clients = self._config.base.privacy, len(plan.cohort)
        nothing = Release(0.0, 0.0)
        fresh, change = due.get("fresh", nothing), due.get("change", nothing)
        alone = privacy.noise == "clients"
        row = self._blocks(len(state.x), plan).first_rows(
            torch.tensor([plan.round_index]), 1, lane=0
        )
        return Clipped(
            x=state.x,
            previous=state.asked if "change" in due else None,
            first_row=row.repeat(clients) if self._slopes else None,
            settings=self._client,
            fresh="fresh" in due,
            clip_norm=fresh.clip_norm,
            noise_std=fresh.share(privacy, clients) if alone else 0.0,
            change_clip=change.clip_norm,
            change_std=change.share(privacy, clients) if alone else 0.0,
            unit=privacy.unit,
            noise_source=privacy.noise_source,
            report=privacy.report_shortened,
        )

    def _found(
        self,
        told: Float[Tensor, "n k"],
        release: Release,
        question: Clipped,
        plan: RoundPlan,
        name: str,
    ) -> Noisy:
        """Return the private average, made of slopes along this round's block or of vectors."""
        published = private_mean(told, release, self._config.base, plan, purpose=name)
        if not self._slopes:
            return Noisy(published.mean, published.std)
        x = question.x
        blocks = self._blocks(len(x), plan)
        slopes = published.mean * (blocks.size / len(x)) ** 0.5
        assert question.first_row is not None
        rows = question.first_row[:1]
        return Noisy(blocks.combine(slopes.unsqueeze(0), rows, 0)[0].to(x), published.std)

    def _blocks(self, dim: int, plan: RoundPlan) -> Blocks:
        return Blocks(dim, self._client.num_directions, plan.seed, plan.problem)

    @cached_property
    def _optimizer(self) -> Optimizer:
        return make_optimizer("sgd", momentum=self._config.server_momentum)

    @property
    def _slopes(self) -> bool:
        return not self._client.exact
