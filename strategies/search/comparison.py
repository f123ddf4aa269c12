"""Ask a cohort how a proposal compares with the best x so far, one number a client.

What the clients answered at x is remembered, so they are asked at the proposal alone; a client that
has not answered at x is asked at both. Shapes: x, proposal [d].
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.protocol.questions.values import Values, ValuesTold
from strategies.core.asking import Asked, Asking, Heard, ask_each
from strategies.core.robust import RobustConfig, aggregate
from strategies.core.rounds import RoundPlan


@dataclass(frozen=True, slots=True)
class Answered:
    """What clients have answered at x; nobody before the first round."""

    clients: Int[Tensor, " k"]
    values: Float[Tensor, " k"]

    def of(self, clients: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return what these clients have answered, who must be among them."""
        return self.values[torch.searchsorted(self.clients, clients)]


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
    known = set(answered.clients.tolist())
    familiar = [client for client in plan.cohort if blind or client in known]
    others = [client for client in plan.cohort if not blind and client not in known]
    groups: list[Asked[ValuesTold]] = [
        (Values(x=proposal.unsqueeze(0)), familiar),
        (Values(x=torch.stack([x, proposal])), others),
    ]
    answers = yield from ask_each(groups)
    told = [_pairs(heard, answered, blind) for heard in answers if _answers(heard)]
    if not told:
        return None
    clients, old, new = (torch.cat(each) for each in zip(*told, strict=True))
    order = clients.argsort()
    clients = clients[order]
    return Compared(Answered(clients, old[order]), Answered(clients, new[order]))


def _answers(heard: Heard[ValuesTold]) -> bool:
    """Return whether anybody has answered, whose budget was not too small."""
    return bool(heard.clients) and heard.said.values.shape[1] > 0


def _pairs(
    heard: Heard[ValuesTold], answered: Answered, blind: bool
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return who has answered, and what at x, now or before, and at the proposal."""
    clients, values = torch.as_tensor(heard.clients), heard.said.values.double()
    if values.shape[1] == 2:
        return clients, values[:, 0], values[:, 1]
    old = values.new_full((len(clients),), math.nan) if blind else answered.of(clients)
    return clients, old, values[:, 0]


def finite_box(x: Float[Tensor, " d"], plan: RoundPlan, strategy: str) -> tuple[Tensor, Tensor]:
    """Return the box [d] each; raises ConfigError, naming the strategy, unless it is bounded."""
    low, high = (torch.as_tensor(bound).to(x) for bound in (plan.lower, plan.upper))
    if not (low.isfinite().all() and high.isfinite().all()):
        raise ConfigError(
            f"strategy {strategy} needs a bounded box, got [{plan.lower}, {plan.upper}]; give the"
            " objectives finite bounds or use another strategy"
        )
    return low.expand_as(x), high.expand_as(x)
