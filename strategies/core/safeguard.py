"""Keep the old x unless the clients say that the new one is better.

    x_{r+1} = x_new if mean_i y_i(x_new) < mean_i y_i(x_old) else x_old

The published code of FZooS does so for every method, with the true F and uncounted; here the
cohort of the round is asked, at both points, and counted: 2 queries and floats up a client, 2 d
down.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.protocol.questions.values import Values
from strategies.core.asking import Asking, ask
from strategies.core.robust import RobustConfig, aggregate
from strategies.core.rounds import RoundPlan


def better(
    old: Float[Tensor, " d"],
    new: Float[Tensor, " d"],
    plan: RoundPlan,
    config: RobustConfig | None = None,
) -> Asking[Float[Tensor, " d"]]:
    """Ask the cohort and return the better x; the new one when the budget does not allow to ask.

    config: of a strategy that aggregates by a rule, which then decides about the changes too.
    """
    heard = yield from ask(Values(x=torch.stack([old, new])), plan.cohort)
    values = heard.said.values
    if values.shape[1] == 0:
        return new
    if config is None or config.rule.is_mean:
        before, after = values.mean(dim=0)
        return old if before <= after else new
    change = aggregate(values[:, 1:] - values[:, :1], config, plan, purpose="safeguard")
    return new if float(change) < 0 else old
