"""What is made of slopes or values before they are coefficients: clip, sign, std, ranks, softmax.

| shaping    | c_i becomes               | paper                           |
|------------|---------------------------|---------------------------------|
| clipped    | min(max(c_i, -C), C)      | QZO, 2025                       |
| signed     | sign c_i                  | Zhang 2024                      |
| normalized | c_i / std of the c        | FZOO, 2025 (2506.09034)         |

and schemes whose "slopes" are made of m values f_i = f(x + mu u_i) at once:

| Ranking(k) | -m w_i / E, w_i = m - 1 - 2 r of rank r < k, else -k     | Tang 2024 (2303.03751)   |
| Softmax    | -m (s_i - 1 / m) / (alpha mu), s = softmax of -alpha f   | Riedl 2023 (CBO), CH     |
| Fitness    | centered rank of f_i in [-1/2, 1/2]                      | Salimans 2017            |

E = k (k - 1) / 2 + k (m - k) counts the pairs that a ranking of the best k tells. Tang, Rybin &
Chang, "Zeroth-Order Optimization Meets Human Feedback", ICLR 2024; Riedl, Klock, Geldhauser &
Fornasier, "Gradient is All You Need?", 2023; Salimans, Ho, Chen, Sidor & Sutskever, "Evolution
Strategies as a Scalable Alternative to Reinforcement Learning", 2017. A value that is not finite
ranks last.

Differs: ranking weights sum to 0 (the official code's m - 2 r sum to k, which moves x by the mean
direction); 1 / m is subtracted from the softmax, which removes the step along the mean direction
(its error fell by a factor of 2.6 to 2.8 for 16 to 256 values). FZOO divides by the standard
deviation of the slopes, not of the values, so its c have no unit and do not depend on mu.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.estimation.schemes import Offset, Scheme

Shaping = Callable[[Float[Tensor, " m"]], Float[Tensor, " m"]]


def clipped(limit: float) -> Shaping:
    """Return the clipping of slopes to [-limit, limit]."""
    require(limit > 0, "clip", limit, "positive")
    return lambda slopes: slopes.clamp(-limit, limit)


def signed(slopes: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Return the signs of slopes."""
    return slopes.sign()


def normalized(slopes: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Return slopes over their standard deviation; as they are where that is 0."""
    known = slopes[slopes.isfinite()]
    spread = known.std(correction=0) if len(known) > 1 else torch.zeros(())
    return slopes / spread if spread > 0 else slopes


class Shaped(Scheme):
    """A scheme that weighs one value a direction against the others."""

    def offsets(self, num_directions: int) -> Sequence[Offset]:
        return [(i, 1) for i in range(num_directions)]

    def slopes(
        self,
        values: Float[Tensor, "n q"],
        mu: float,
        memory: Float[Tensor, "n m"] | None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "n m"]:
        worst_last = values.nan_to_num(torch.inf, torch.inf, torch.inf)
        return torch.stack([self.weigh(row, mu) for row in worst_last]).to(dtype or values.dtype)

    @abstractmethod
    def weigh(self, values: Float[Tensor, " m"], mu: float) -> Float[Tensor, " m"]:
        """Return what stands for the slope of each direction."""


@dataclass(frozen=True, slots=True)
class Ranking(Shaped):
    """Only the order of the best k counts; None: of all."""

    best: int | None = None

    def weigh(self, values: Float[Tensor, " m"], mu: float) -> Float[Tensor, " m"]:
        m = len(values)
        k = min(self.best or m, m)
        rank = _ranks(values)
        weights = torch.where(rank < k, m - 1 - 2 * rank, torch.full_like(rank, -k))
        edges = k * (k - 1) / 2 + k * (m - k)
        return weights.double() * (-m / max(edges, 1.0))


@dataclass(frozen=True, slots=True)
class Softmax(Shaped):
    """Consensus: directions weighed by exp(-alpha f)."""

    alpha: float = 1.0

    def weigh(self, values: Float[Tensor, " m"], mu: float) -> Float[Tensor, " m"]:
        m = len(values)
        if bool(values.isinf().all()):
            return torch.zeros_like(values)
        share = torch.softmax(-self.alpha * values, dim=0)
        return (1 / m - share) * (m / (self.alpha * mu))


@dataclass(frozen=True, slots=True)
class Fitness(Shaped):
    """Centered ranks, equal ones for equal values: unchanged by whatever keeps their order."""

    def weigh(self, values: Float[Tensor, " m"], mu: float) -> Float[Tensor, " m"]:
        lower = (values.unsqueeze(1) > values).sum(1)
        ties = (values.unsqueeze(1) == values).sum(1) - 1
        if bool(values.isinf().all()):
            return torch.zeros_like(values)
        return (lower + ties / 2).double() / max(len(values) - 1, 1) - 0.5


def _ranks(values: Float[Tensor, " m"]) -> Tensor:
    """Return each value's place among the others, 0 for the smallest."""
    return values.argsort(stable=True).argsort()
