"""FedAMD: of the sampled clients some anchor the gradient, others step along it.

    v_i <- grad f_i(x; large batch) at anchors i;   v = (1 / N) sum_i v_i
    x <- P(x + server_lr mean of the miners' updates along the v of before the round)

Wu, Guo, Qu, He, Liu & Gao, "Anchor Sampling for Federated Learning with Partial Client
Participation", ICML 2023, algorithm 1. Who is an anchor is decided here, so that only miners get v:
by coins, independent of all data (strategy.anchor_probability), or all sampled clients every so
many rounds (strategy.anchor_period). Shapes: x, v [d], updates [n, d]. Floats a client: an anchor d
down, d up; a miner 2d down, d up; with zeroth-order clients fewer up
(strategies.anchored.anchoring). Memory: the v_i stay here, d numbers for each client that has been
an anchor; the form in which clients keep them and send changes needs less here, but loses what a
lost answer held.

Differs from the paper: the pass over all clients that makes the first v_i is a round of its own,
counted like any other, or left out (`init`); a robust rule may stand for both means; batches,
directions and cohort may grow with the variance that anchors report
(strategies.anchored.norm_test). The first of every `anchor_period` rounds after the pass is the
miners', because the pass has just been. Optimal p: what the authors' code minimizes, named as
there.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from fedzo.config import require
from fedzo.objectives.oracle import project
from fedzo.parts import composed, part
from fedzo.protocol.questions.anchored import AnchorConfig, Anchored
from fedzo.randomness import stream
from fedzo.used_with import UsedWith, one_of
from strategies.anchored.anchoring import MiningConfig
from strategies.anchored.norm_test import Adapting, first_control, renewed
from strategies.core.asking import Heard, ask, ask_each
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import aggregate, latest, of_all, remembered
from strategies.core.rounds import Round, RoundPlan, TooFewAnswers
from strategies.core.table import ClientTable, FirstPass

SCHEDULES = ("periodic", "decaying", "opta", "optb", "optc")


@composed
class FedAMDConfig:
    """Settings of FedAMD.

    anchor_period: every so many rounds all sampled clients are anchors, otherwise miners.
    anchor_probability: instead, that of each sampled client's coin; or how it is found: decaying
    with the rounds, or the constant that minimizes a bound (opta, optb, optc). init: whether the
    first v is made by a pass over all clients (full), or v counts as zero those that have not been
    anchors (zero), or is the mean of those that have (lazy).
    """

    mining: MiningConfig = part(MiningConfig)
    anchor_period: int = 2
    anchor_probability: float | str = "periodic"
    init: FirstPass = "full"
    USED_WITH: ClassVar[UsedWith] = {
        "anchor_period": one_of("anchor_probability", "periodic"),
    }

    def __post_init__(self) -> None:
        period, chance = self.anchor_period, self.anchor_probability
        require(period >= 2, "anchor_period", period, "at least 2")
        if chance == "periodic":
            return
        alone = "2 where anchor_probability decides; leave one of them out"
        require(period == 2, "anchor_period", period, alone)
        given = chance in SCHEDULES if isinstance(chance, str) else 0 <= chance <= 1
        allowed = f"from 0 to 1, or one of {', '.join(SCHEDULES)}"
        require(given, "anchor_probability", chance, allowed)

    def probability(self, step: int, cohort: int, num_clients: int) -> float:
        """Return p of a step, counted from 0 after the first pass."""
        chance = self.anchor_probability
        if chance == "periodic":
            offset = 1 if self.init == "full" else 0
            return float((step + offset) % self.anchor_period == 0)
        if chance == "decaying":
            return min(1 / math.log(max((step + 14) / 5, math.e)), 1.0)
        if isinstance(chance, str):
            return optimal_probability(chance, cohort, num_clients)
        return chance


@dataclass(frozen=True, slots=True)
class FedAMDState(Adapting):
    """With what anchors have said, and its mean v.

    steps: rounds after the first pass. last: the last aggregate of updates, if the rule needs it.
    """

    anchors: ClientTable
    gradient: Float[Tensor, " d"]
    last: Float[Tensor, " l"]
    steps: int = 0
    passed: bool = False


class FedAMD(ConfiguredStrategy[FedAMDConfig, AnchorConfig, FedAMDState]):
    """Anchors and miners in one round, each with a message of their own."""

    client_config = AnchorConfig
    remembers = True

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedAMDState:
        control = first_control(self._config.mining.base, self._client)
        nothing = remembered(self.robust, x)
        return FedAMDState(x, control, ClientTable.empty(x), torch.zeros_like(x), nothing)

    def round(self, state: FedAMDState, plan: RoundPlan) -> Round[FedAMDState]:
        round_ = self._config.mining.ask(plan, self._client, state.control)
        if self._config.init == "full" and not state.passed:
            everybody = range(plan.num_clients)
            question = round_.anchors(state.x, everybody)
            heard = yield from ask(question, everybody)
            gradients = round_.gradients(question, everybody, heard)
            return self._anchored(replace(state, passed=True), plan, heard, gradients)
        anchors, miners = self._roles(state, plan)
        anchoring = round_.anchors(state.x, anchors)
        mining = round_.miners(state.x, state.gradient, miners)
        said, done = yield from ask_each([(anchoring, anchors), (mining, miners)])
        after = replace(state, steps=state.steps + 1)
        if said.clients:
            gradients = round_.gradients(anchoring, anchors, said)
            after = self._anchored(after, plan, said, gradients)
        if done.clients:
            after = self._moved(after, plan, round_.updates(mining, miners, done))
        return after

    def _roles(self, state: FedAMDState, plan: RoundPlan) -> tuple[list[int], list[int]]:
        """Flip a coin for each sampled client, the same whatever the data are: anchors, miners."""
        chance = self._config.probability(state.steps, len(plan.cohort), plan.num_clients)
        coins = stream(plan.seed, "anchors", plan.problem, plan.round_index)
        heads = (coins.random(len(plan.cohort)) < chance).tolist()
        anchors = [c for c, head in zip(plan.cohort, heads, strict=True) if head]
        miners = [c for c, head in zip(plan.cohort, heads, strict=True) if not head]
        return anchors, miners

    def _anchored(
        self,
        state: FedAMDState,
        plan: RoundPlan,
        heard: Heard[Anchored],
        gradients: Float[Tensor, "n d"],
    ) -> FedAMDState:
        """Note the anchors' gradients and make v of all that are known."""
        config, init = self._config.mining.base, self._config.init
        if not len(gradients):
            return state
        table = state.anchors.renewed(heard.clients, gradients)
        known = table.known(init, plan.num_clients)
        everybody = of_all(self.robust, plan)
        try:
            gradient = aggregate(known, everybody, plan, purpose="anchors", start=state.gradient)
        except TooFewAnswers:  # of so few anchors v cannot be trusted yet
            if init == "full":
                raise
            gradient = state.gradient
        settings = config if len(heard) <= len(plan.cohort) else replace(config, robust=everybody)
        control = renewed(state.control, settings, plan, heard, gradients, gradient)
        return replace(state, anchors=table, gradient=gradient, control=control)

    def _moved(
        self, state: FedAMDState, plan: RoundPlan, updates: Float[Tensor, "n d"]
    ) -> FedAMDState:
        """Step by the aggregate of the miners' updates; too few for the rule move nothing."""
        lr = self._config.mining.rate.server_lr
        try:
            update = aggregate(updates, self.robust, plan, start=state.last)
        except TooFewAnswers:
            return state
        x = project(state.x + lr * update, plan.lower, plan.upper)
        return replace(state, x=x, last=latest(self.robust, update, state.last))


def optimal_probability(name: str, cohort: int, num_clients: int) -> float:
    """Return the constant p that minimizes the bound `opta`, `optb` or `optc` of the code.

    opta: 1 / (1 - p^a) + (2 m / a) / (p sqrt(1 - p^a)), a of m clients; the others: closed forms.
    """
    ratio = num_clients / cohort
    if name == "optb":
        return math.sqrt(4 * ratio**2 + 2 * ratio) - 2 * ratio
    if name == "optc":
        return float((2 / (cohort + 2)) ** (1 / cohort))

    def bound(p: float) -> float:
        miners = 1 - p**cohort
        return 1 / miners + 2 * ratio / (p * math.sqrt(miners))

    found = minimize_scalar(bound, bounds=(1e-6, 1 - 1e-6), method="bounded")  # type: ignore[no-untyped-call]
    return float(found.x)
