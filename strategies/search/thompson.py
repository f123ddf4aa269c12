"""Federated Thompson sampling: clients judge complete proposals, the server learns the gradient.

    g ~ posterior of grad F given all changes of the mean so far;   x' = corners of the box against
    g in a share of the coordinates, x elsewhere;   x <- x' if mean_i f_i(x') < mean_i f_i(x)

The same proposals and the same learning as the attacker fedzo.attacks.attackers.thompson, which
explains them; what is learned from is the mean of the clients' answers (with `strategy.aggregator`
what that rule makes of their changes), one number each, at points that all of them share, so their
heterogeneity cancels. Where x is an image (or nobody knows, and it has a square number of
coordinates), the prior believes that neighboring pixels matter alike; with lengthscale 0, and
elsewhere, coordinates are independent. Shapes: x [d]. Queries: 1 a client and round, and x once
(beside the driver's own question there). Floats a client and round: d down, 1 up.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attackers.thompson import Incumbent, ThompsonConfig, learn, propose
from fedzo.attacks.region import Region
from fedzo.parts import composed, part
from fedzo.protocol.questions.values import ValuesConfig
from fedzo.randomness import stream
from fedzo.surrogates.spatial import no_changes, square_prior
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import RobustConfig
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.search.comparison import Answered, compare, finite_box, nobody


@composed
class FederatedThompsonConfig:
    """Settings of rounds and rules, and those of the attacker thompson."""

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    sampling: ThompsonConfig = part(ThompsonConfig, lengthscale=2.5, spread=0.5)


@dataclass(frozen=True, slots=True)
class ThompsonState:
    """The best x with what was learned, and what clients answered there."""

    best: Incumbent
    answered: Answered

    @property
    def x(self) -> Float[Tensor, " d"]:
        """The best x."""
        return self.best.delta


class FederatedThompson(ConfiguredStrategy[FederatedThompsonConfig, ValuesConfig, ThompsonState]):
    """Thompson sampling over the corners of a box, all clients asked at the same proposal."""

    client_config = ValuesConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> ThompsonState:
        return ThompsonState(Incumbent(x, 0.0, no_changes(len(x))), nobody(x))

    def round(self, state: ThompsonState, plan: RoundPlan) -> Round[ThompsonState]:
        x = state.x
        prior = square_prior(len(x), self._config.sampling.lengthscale, image=plan.image)
        low, high = finite_box(x, plan, "thompson")
        region = Region("linf", math.inf, low, high, prior.shape)
        generator = stream(plan.seed, "thompson", plan.problem, plan.round_index)
        proposal = propose(state.best, region, prior, self._config.sampling, generator=generator)
        compared = yield from compare(x, proposal, state.answered, plan)
        if compared is None:
            return state
        change = compared.change(self.robust, plan)
        best = learn(state.best, proposal, state.best.loss + change, prior, self._config.sampling)
        return ThompsonState(best, compared.new if change < 0 else compared.old)
