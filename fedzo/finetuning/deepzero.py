"""DeepZero's estimates: differences along a share of the axes, by ratios that ZO-GraSP chooses.

    g_0 = RGE(x),  g_1 = RGE(x + mu g_0),  score_j = -x_j (g_1 - g_0)_j / mu           (ZO-GraSP)
    ratio of a tensor: its share of the numbers with the lowest scores, those without which the
    gradient would be smallest
    every `refresh` steps: a new random mask with these ratios; g_j along e_j where it allows

Chen et al., "DeepZero: Scaling up Zeroth-Order Optimization for Deep Model Training", ICLR 2024,
sections 3 and 4. Cost: 1 + share d forward passes a step (central: twice that), once 2 (m + 1) for
the ratios. Differs from the paper's code: both estimates of ZO-GraSP use the same directions and
the right scale; scores are ranked as GraSP ranks them (Wang et al., "Picking Winning Tickets Before
Training by Preserving Gradient Flow", ICLR 2020), not by magnitude; probes leave buffers alone.
"""

import torch
from jaxtyping import Bool

from fedzo.config import require
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.schemes import SCHEMES, Scheme
from fedzo.estimation.structured import Fixed
from fedzo.estimation.view import View
from fedzo.finetuning.finding import ByValues, Found, finite, weighted
from fedzo.finetuning.masks import part_mask, random_mask
from fedzo.finetuning.samplers import Axes, Keyed, step_keys
from fedzo.finetuning.variance_reduced import flat


class SparseCoordinates:
    """Finds differences along the axes that the mask of the step allows."""

    def __init__(
        self,
        view: View,
        *,
        seed: int,
        mu: float,
        share: float,
        refresh: int,
        num_directions: int,
        scheme: Scheme,
    ) -> None:
        require(0 < share <= 1, "share", share, "above 0 and at most 1")
        self._view, self._seed, self._share, self._refresh = view, seed, share, refresh
        self._m = num_directions
        self.ratios: dict[str, float] | None = None
        """Of each tensor's numbers, the share that is asked."""
        self._values = ByValues(Axes(self._mask), scheme, mu)

    def find(self, place: InPlace, step: int) -> Found:
        if self.ratios is not None:
            return self._values.find(place, step)
        self.ratios = self._choose(place)
        try:
            return self._values.find(place, step)
        except BaseException:  # the step is taken anew, and its log begins with their values
            self.ratios = None
            raise

    def _mask(self, step: int) -> Bool[torch.Tensor, " d"]:
        if self._share == 1.0 or self.ratios is None:
            return part_mask(self._view)
        turn = step // self._refresh
        return random_mask(self._view, self.ratios, seed=self._seed, turn=turn)

    def _choose(self, place: InPlace) -> dict[str, float]:
        if self._share == 1.0:
            return dict.fromkeys(self._view.names, 1.0)
        mu, sampler, scheme = self._values.mu, Keyed(self._seed), SCHEMES["forward"]
        keys = step_keys(self._seed, 0, self._m, "gaussian", "grasp")
        here = finite(place.values(keys, scheme, mu))
        first = weighted(keys, (here[1:] - here[0]) / mu, sampler).vector(self._view.total)
        moved = [(Fixed(first), mu)]
        there = place.asked_at([moved, *([*moved, (key, mu)] for key in keys)])
        after = finite(torch.tensor(there, dtype=torch.float64))
        second = weighted(keys, (after[1:] - after[0]) / mu, sampler).vector(self._view.total)
        scores = -flat(self._view) * (second - first) / mu
        return kept_shares(self._view, -scores, self._share)


def kept_shares(view: View, scores: torch.Tensor, share: float) -> dict[str, float]:
    """Return of each tensor the share of numbers among the highest scores of the whole view.

    Of numbers with the same score at the edge, such as 0, each tensor has the same part.
    """
    own = part_mask(view)
    count = max(1, round(share * int(own.sum())))
    edge = scores[own].topk(count).values[-1]
    above, level = own & (scores > edge), own & (scores == edge)
    part = (count - int(above.sum())) / max(1, int(level.sum()))
    chosen = above.double() + part * level.double()
    sizes = zip(view.names, view.firsts, view.tensors, strict=True)
    return {
        name: float(chosen[first : first + tensor.numel()].mean()) for name, first, tensor in sizes
    }
