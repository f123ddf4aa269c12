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
    before = answered.by_client()
    familiar = [client for client in plan.cohort if blind or client in before]
    others = [client for client in plan.cohort if not blind and client not in before]
    groups: list[Asked[ValuesTold]] = [
        (Values(x=proposal.unsqueeze(0)), familiar),
        (Values(x=torch.stack([x, proposal])), others),
    ]
    heard = yield from ask_each(groups)
    pairs: dict[int, tuple[float, float]] = {}
    for group in heard:
        for client, told in zip(group.clients, _told(group), strict=True):
            if told:
                pairs[client] = (
                    before.get(client, math.nan) if len(told) == 1 else told[0],
                    told[-1],
                )
    if not pairs:
        return None
    clients = torch.tensor(sorted(pairs))
    old, new = torch.tensor([pairs[c] for c in sorted(pairs)], dtype=torch.float64).unbind(dim=1)
    return Compared(Answered(clients, old), Answered(clients, new))


def _told(heard: Heard[ValuesTold]) -> list[list[float]]:
    """Return what each client has answered; nothing of one whose budget was too small."""
    return heard.said.values.tolist() if heard.clients else []


def finite_box(x: Float[Tensor, " d"], plan: RoundPlan, strategy: str) -> tuple[Tensor, Tensor]:
    """Return the box [d] each; raises ConfigError, naming the strategy, unless it is bounded."""
    low, high = (torch.as_tensor(bound).to(x) for bound in (plan.lower, plan.upper))
    if not (low.isfinite().all() and high.isfinite().all()):
        raise ConfigError(
            f"strategy {strategy} needs a bounded box, got [{plan.lower}, {plan.upper}]; give the"
            " objectives finite bounds or use another strategy"
        )
    return low.expand_as(x), high.expand_as(x)
