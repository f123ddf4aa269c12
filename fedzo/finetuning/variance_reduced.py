"""MeZO-SVRG: slopes of a minibatch corrected by those at a snapshot, along the same direction.

    g = [c(x; B) - c(s; B)] z + g_s,   s = x at the last snapshot,
    c(y; B) = [f_B(y + mu z) - f_B(y - mu z)] / (2 mu),   g_s: the estimate at s on all examples

Gautam, Park, Zhou, Raman & Ha, "Variance-reduced Zeroth-Order Methods for Fine-Tuning Language
Models", ICML 2024 (2404.08080). Cost: 4 forward passes of the batch a step, and 2 m of the full
data every `period` steps. Memory: the snapshot and its distance from x, two vectors of length d.
Differs from the paper: corrected steps have the same step size as the others, and g_s is kept as
keys and coefficients.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.estimation.estimate import Estimate
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.place import Term
from fedzo.estimation.schemes import SCHEMES
from fedzo.estimation.structured import Fixed
from fedzo.estimation.view import View
from fedzo.finetuning.asking import Told
from fedzo.finetuning.finding import ByValues, Found
from fedzo.finetuning.samplers import Keyed, step_keys


@dataclass(slots=True)
class _Snapshot:
    vector: Float[Tensor, " d"]
    estimate: Estimate


class VarianceReduced:
    """Finds corrected estimates. full: the loss on all examples, set before a step that asks it."""

    def __init__(
        self, view: View, *, seed: int, mu: float, period: int, num_directions: int
    ) -> None:
        self._view, self._seed, self._mu, self._period = view, seed, mu, period
        self._whole = ByValues(Keyed(seed, "gaussian"), SCHEMES["central"], mu, num_directions)
        self._held: _Snapshot | None = None
        self.full: Callable[[], Tensor] | None = None

    def find(self, place: InPlace, step: int) -> Found:
        if step % self._period == 0 or self._held is None:
            return self._take(place, step)
        [z] = step_keys(self._seed, step, 1, "gaussian")
        back = self._held.vector - flat(self._view)
        sides: list[list[Term]] = [[(z, self._mu)], [(z, -self._mu)]]
        at_snapshot = [[(Fixed(back), 1.0), *side] for side in sides]
        values = place.asked_at([*sides, *at_snapshot])
        here, there = values[:2], values[2:]
        change = ((here[0] - here[1]) - (there[0] - there[1])) / (2 * self._mu)
        coefficient = torch.tensor([change], dtype=torch.float64)
        if not bool(coefficient.isfinite()):
            return Found(Estimate((), coefficient[:0]), sum(here) / 2)
        kept = self._held.estimate
        together = Estimate([z, *kept.keys], torch.cat([coefficient, kept.coefficients]))
        return Found(together, sum(here) / 2)

    def _take(self, place: InPlace, step: int) -> Found:
        """Take a snapshot, and go along the estimate on all examples."""
        if self.full is None and not isinstance(place, Told):
            raise ConfigError(
                "method=mezo_svrg needs the loss on all examples as well; call"
                " step(closure, full=closure_on_all_examples)"
            )
        found = self._whole.find(place.asking(self.full) if self.full else place, step)
        self._held = _Snapshot(flat(self._view), found.estimate)
        return found


def flat(view: View) -> Float[Tensor, " d"]:
    """Return a copy of what the view holds, at its places in x; 0 elsewhere."""
    x = torch.zeros(view.total, device=view.tensors[0].device)
    for tensor, first in zip(view.tensors, view.firsts, strict=True):
        x[first : first + tensor.numel()] = tensor.detach().reshape(-1)
    return x
