"""HiZOO: directions scaled by a running estimate of the Hessian's diagonal.

    u = z / sqrt(H);   c = [f(x + mu u) - f(x - mu u)] / (2 mu)
    H <- (1 - a) H + a |f(x + mu u) + f(x - mu u) - 2 f(x)| / (2 mu^2) H z^2;   g = c z / sqrt(H)

Zhao, Dang, Ye, Dai, Qian & Tsang, "Second-Order Fine-Tuning without Pain for LLMs: A Hessian
Informed Zeroth-Order Optimizer", ICLR 2025 (2402.15173). Cost: 3 forward passes a step. Memory:
1 / sqrt(H), a vector of length d. Differs from the paper: H is kept above 1e-8, so that a direction
stays finite; a value that is not finite leaves H as it is.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.estimation.estimate import Estimate
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.structured import Scaled
from fedzo.estimation.view import View
from fedzo.finetuning.finding import Found
from fedzo.finetuning.samplers import step_keys

_LEAST = 1e-8
_AT_ONCE = 1 << 20


class HessianInformed:
    """Finds estimates in directions that its Hessian, learned on the way, scales.

    rate: a.
    """

    def __init__(self, view: View, *, seed: int, mu: float, rate: float) -> None:
        self._seed, self._mu, self._rate = seed, mu, rate
        self.factors: Float[Tensor, " d"] = torch.ones(view.total, device=view.tensors[0].device)
        """1 / sqrt(H)."""

    def find(self, place: InPlace, step: int) -> Found:
        [key] = step_keys(self._seed, step, 1, "gaussian")
        u, mu = Scaled(key, self.factors), self._mu
        center, plus, minus = place.asked_at([[], [(u, mu)], [(u, -mu)]])
        bend = abs(plus + minus - 2 * center) / (2 * mu * mu)
        slope = (plus - minus) / (2 * mu)
        if not math.isfinite(bend + slope):
            return Found(Estimate([], torch.empty(0, dtype=torch.float64)), center)
        for start in range(0, len(self.factors), _AT_ONCE):
            part = self.factors[start : start + _AT_ONCE]
            z = key.draw(start, start + len(part), device=part.device)
            growth = 1 - self._rate + self._rate * bend * z.square_()
            part.copy_((part**-2 * growth).clamp_(min=_LEAST).rsqrt_())
        coefficients = torch.tensor([slope], dtype=torch.float64)
        return Found(Estimate([Scaled(key, self.factors)], coefficients), center)
