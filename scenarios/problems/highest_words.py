"""The words of highest x: where several have the x at which the cut is, chance decides."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


def highest_words(
    x: Float[Tensor, " l"], count: int, draws: int, *, generator: np.random.Generator
) -> Bool[Tensor, "k l"]:
    """Return which so many words have the highest x; of equal ones others in every draw."""
    order = torch.from_numpy(generator.random((draws, len(x)))).argsort(dim=1)
    order = order.gather(1, x[order].argsort(dim=1, descending=True, stable=True))
    best = torch.zeros(order.shape, dtype=torch.bool)
    return best.scatter_(1, order[:, :count], value=True)


def found_share(planted: Bool[Tensor, " l"], x: Float[Tensor, " l"], count: int) -> float:
    """Return which share of so many words of highest x was planted, on average over equal ones."""
    edge = x.topk(count).values[-1]
    above, level = x > edge, x == edge
    found = planted[above].sum() + (count - above.sum()) * planted[level].double().mean()
    return float(found / count)
