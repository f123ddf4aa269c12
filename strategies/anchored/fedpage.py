"""FedPAGE and BVR-L-SGD: local steps along a gradient that the server keeps up to date.

    v <- mean over all clients of g_i(x; large batch)                      when it is time to, else
    v <- v + mean over the cohort of [g_i(x; B) - g_i(x_old; B)]           the same B at both
    x <- P(x + server_lr mean of miners' updates along v), or the update of one miner at random

FedPAGE: Zhao, Li & Richtarik, "FedPAGE: A Fast Local Stochastic Gradient Method for
Communication-Efficient Federated Learning", arXiv 2108.04755: it is time with probability p.
BVR-L-SGD: Murata & Suzuki, "Bias-Variance Reduced Local SGD for Less Heterogeneous Federated
Learning", ICML 2021: it is time every `restart_period` rounds, and one client's result is kept.
Miners take SARAH's local steps (clients.anchored.anchor). Shapes: x, v [d], updates [n, d]. Two
exchanges a round. Floats a client: first d down (2d for a change), d up; then 2d down, d up.

Differs from the papers: written from their abstracts and other people's notes, without the text of
their algorithms; only the miner whose result is kept is asked; batches of a change are of
anchor_batch_size; a robust rule may stand for the means.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.finite import all_finite
from fedzo.objectives.oracle import project
from fedzo.parts import composed, part
from fedzo.protocol.questions.anchored import Anchor, AnchorConfig, Difference
from fedzo.randomness import stream
from strategies.anchored.anchoring import MiningConfig
from strategies.anchored.norm_test import Adapting, first_control, renewed
from strategies.core.asking import ask
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import aggregate, latest, of_all, remembered
from strategies.core.rounds import Round, RoundPlan, TooFewAnswers


@composed
class FedPAGEConfig:
    """Settings of FedPAGE: full_probability, that of asking everybody for a gradient."""

    mining: MiningConfig = part(MiningConfig)
    full_probability: float = 0.2

    def __post_init__(self) -> None:
        chance = self.full_probability
        require(0 <= chance <= 1, "full_probability", chance, "from 0 to 1")

    def full(self, plan: RoundPlan) -> bool:
        """Return whether everybody is asked in a round."""
        coin = stream(plan.seed, "full gradient", plan.problem, plan.round_index)
        return bool(coin.random() < self.full_probability)

    def miners(self, plan: RoundPlan) -> Sequence[int]:
        """Return who steps along v."""
        return plan.cohort


@composed
class BVRLSGDConfig:
    """Settings of BVR-L-SGD: rounds from one full gradient to the next."""

    mining: MiningConfig = part(MiningConfig)
    restart_period: int = 5

    def __post_init__(self) -> None:
        require(self.restart_period >= 1, "restart_period", self.restart_period, "at least 1")
        liars = self.mining.base.robust.num_byzantine
        require(liars == 0, "num_byzantine", liars, "0: one miner's result is kept; use fedpage")

    def full(self, plan: RoundPlan) -> bool:
        """Return whether everybody is asked in a round."""
        return (plan.round_index - 1) % self.restart_period == 0

    def miners(self, plan: RoundPlan) -> Sequence[int]:
        """Return the one whose result is kept."""
        drawn = stream(plan.seed, "miner", plan.problem, plan.round_index)
        return [plan.cohort[int(drawn.integers(len(plan.cohort)))]]


@dataclass(frozen=True, slots=True)
class FedPAGEState(Adapting):
    """With the x before, the gradient v, and whether there has been a full one."""

    previous: Float[Tensor, " d"]
    gradient: Float[Tensor, " d"]
    last: Float[Tensor, " l"]
    begun: bool = False


class FedPAGE(ConfiguredStrategy[FedPAGEConfig | BVRLSGDConfig, AnchorConfig, FedPAGEState]):
    """Both methods: their settings say when everybody is asked, and who mines."""

    needs_own_x = True
    client_config = AnchorConfig
    remembers = True

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedPAGEState:
        control = first_control(self._config.mining.base, self._client)
        nothing = remembered(self.robust, x)
        return FedPAGEState(x, control, x, torch.zeros_like(x), nothing)

    def round(self, state: FedPAGEState, plan: RoundPlan) -> Round[FedPAGEState]:
        config = self._config
        round_ = config.mining.ask(plan, self._client, state.control)
        full = not state.begun or config.full(plan)
        asked = range(plan.num_clients) if full else plan.cohort
        question: Anchor | Difference = (
            round_.anchors(state.x, asked)
            if full
            else round_.difference(state.x, state.previous, asked)
        )
        heard = yield from ask(question, asked)
        found = round_.gradients(question, asked, heard)
        if not len(found):  # the budget is too small
            return state
        robust = of_all(self.robust, plan) if full else self.robust
        settings = replace(config.mining.base, robust=robust)
        start = state.gradient if full else torch.zeros_like(state.gradient)
        change = aggregate(found, robust, plan, purpose="gradient", start=start)
        gradient = change if full else state.gradient + change
        control = renewed(state.control, settings, plan, heard, found, gradient)
        miners = config.miners(plan)
        mining = round_.miners(state.x, gradient, miners)
        updates = round_.updates(mining, miners, (yield from ask(mining, miners)))
        alone = len(miners) == 1
        if alone and not all_finite(updates):
            raise TooFewAnswers(f"round {plan.round_index}: the one miner's update is not finite")
        update = updates[0] if alone else aggregate(updates, self.robust, plan, start=state.last)
        return replace(
            state,
            x=project(state.x + config.mining.rate.server_lr * update, plan.lower, plan.upper),
            previous=state.x,
            gradient=gradient,
            control=control,
            last=latest(self.robust, update, state.last),
            begun=True,
        )
