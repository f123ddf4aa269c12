"""Answer plain questions: the objective's value at given points.

    query.value, evaluate:   x [q, d]  ->  values [n, q]

Cost: q queries a client. Sent: q d floats down, q up, in float64 whatever the type of x.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedzo.exchange import ClientState, Exchange
from fedzo.oracle import Oracle


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesConfig:
    """Settings of strategies whose clients only answer values: there are none."""


def answer_values(
    exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]
) -> tuple[dict[str, Tensor], Sequence[ClientState]]:
    """Ask every client's objective at the same points; [n, 0] when the budget is too small."""
    x = exchange.shared["x"]
    if oracle.remaining < len(x):
        none = torch.empty(len(exchange.client_ids), 0, dtype=torch.float64)
        return {"values": none}, states
    points = x.expand(len(exchange.client_ids), *x.shape)
    return {"values": oracle.value(points)}, states
