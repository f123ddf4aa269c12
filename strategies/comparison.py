"""Ask a cohort how a proposal compares with the best x so far, one number a client.

What the clients answered at x is remembered, so a cohort that stays the same is asked at the
proposal alone; a client that was not asked at x is asked at both. Shapes: x, proposal [d].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.protocol.questions.values import Values
from strategies.asking import Asking, ask
from strategies.robust import RobustConfig, aggregate
from strategies.rounds import RoundPlan


@dataclass(frozen=True, slots=True)
class Answered:
    """What clients have answered at x; nobody before the first round."""

    clients: Int[Tensor, " k"]
    values: Float[Tensor, " k"]

    def by_client(self) -> dict[int, float]:
        """Return the answers by client id."""
        return dict(zip(self.clients.tolist(), self.values.tolist(), strict=True))


def nobody(x: Float[Tensor, " d"]) -> Answered:
    """Return the answers before the first round."""
    return Answered(torch.empty(0, dtype=torch.int64), x.new_empty(0))


@dataclass(frozen=True, slots=True)
class Compared:
    """The answers of the clients that answered, at x and at the proposal."""

    old: Answered
    new: Answered

    def change(self, config: RobustConfig, plan: RoundPlan) -> float:
        """Return the change from x to the proposal that the clients agree on.

        The mean of their changes, or what `strategy.aggregator` makes of them: numbers, so a liar
        can at most make the server err about one proposal. Raises TooFewAnswers as `aggregate`.
        """
        changes = (self.new.values - self.old.values).double().unsqueeze(1)
        return float(aggregate(changes, config, plan, purpose="change"))


def compare(
    x: Float[Tensor, " d"],
    proposal: Float[Tensor, " d"],
    answered: Answered,
    plan: RoundPlan,
    *,
    blind: bool = False,
) -> Asking[Compared | None]:
    """Ask the plan's cohort; `blind` leaves x out, whose values are then NaN.

    Returns None where the clients' budget does not cover the question.
    """
    known = torch.equal(answered.clients, torch.as_tensor(plan.cohort))
    points = [proposal] if known or blind else [x, proposal]
    heard = yield from ask(Values(x=torch.stack(points)), plan.cohort)
    values, clients = heard.said.values, torch.as_tensor(heard.clients)
    if values.shape[1] == 0:
        return None
    if known:
        old = answered.values[torch.isin(answered.clients, clients)]
    else:
        old = torch.full_like(values[:, 0], torch.nan) if blind else values[:, 0]
    return Compared(Answered(clients, old), Answered(clients, values[:, -1]))


def finite_box(x: Float[Tensor, " d"], plan: RoundPlan, strategy: str) -> tuple[Tensor, Tensor]:
    """Return the box [d] each; raises ConfigError, naming the strategy, unless it is bounded."""
    low, high = (torch.as_tensor(bound).to(x) for bound in (plan.lower, plan.upper))
    if not (low.isfinite().all() and high.isfinite().all()):
        raise ConfigError(
            f"strategy {strategy} needs a bounded box, got [{plan.lower}, {plan.upper}]; give the"
            " objectives finite bounds or use another strategy"
        )
    return low.expand_as(x), high.expand_as(x)
