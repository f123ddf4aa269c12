"""Keep the old x unless the clients say that the new one is better.

    x_{r+1} = x_new if mean_i y_i(x_new) < mean_i y_i(x_old) else x_old

The published code of FZooS does so for every method, with the true F and uncounted; here the
cohort of the round is asked, at both points, and counted: 2 queries and floats up a client, 2 d
down.
"""

from collections.abc import Generator

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.exchange import Exchange, Replies
from strategies.rounds import RoundPlan


def better(
    old: Float[Tensor, " d"], new: Float[Tensor, " d"], plan: RoundPlan
) -> Generator[list[Exchange], list[Replies], Float[Tensor, " d"]]:
    """Ask the cohort and return the better x; the new one when the budget does not allow to ask."""
    [replies] = yield [
        Exchange(
            kind="query.value",
            client_ids=plan.cohort,
            shared={"x": torch.stack([old, new])},
            expects={"values": [(2,), (0,)]},
        )
    ]
    values = replies.tensors["values"].mean(dim=0)
    return old if len(values) and values[0] <= values[1] else new
