"""Guided evolution strategies: directions that lean to where the last estimates led.

    u = sqrt(alpha) z + sqrt((1 - alpha) d / k) U w,   w ~ N(0, I_k),   U [d, k] orthonormal

Maheswaranathan, Metz, Tucker, Choi & Sohl-Dickstein, "Guided evolutionary strategies: augmenting
random search with surrogate gradients", ICML 2019 (1806.10230). Cost: 2 m forward passes. Memory:
U, k vectors of length d. Differs from the paper: |u|^2 is d in the mean, not 1, as for the other
directions; the surrogate gradients are the last k estimates themselves, so that nothing but values
is needed, and until there are k of them directions are plain normals.
"""

from collections import deque

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fedzo.estimation.direction import Direction
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.schemes import SCHEMES
from fedzo.estimation.structured import Combination, Fixed
from fedzo.estimation.view import View
from fedzo.finetuning.finding import ByValues, Found
from fedzo.finetuning.masks import part_mask
from fedzo.finetuning.samplers import mean_weights, step_keys


class Guided:
    """A sampler and finder that learns from its own estimates."""

    def __init__(
        self, view: View, *, seed: int, mu: float, num_directions: int, k: int, alpha: float
    ) -> None:
        self._seed, self._k, self._alpha, self._view = seed, min(k, view.dim), alpha, view
        self._reached = part_mask(view)
        self._held: deque[Float[Tensor, " d"]] = deque(maxlen=self._k)
        self._values = ByValues(self, SCHEMES["central"], mu, num_directions)

    def weights(self, known: Bool[Tensor, " m"]) -> Float[Tensor, " m"]:
        return mean_weights(known)

    def directions(self, step: int, count: int) -> list[Direction]:
        keys = step_keys(self._seed, step, count, "gaussian")
        if len(self._held) < self._k:
            return list(keys)
        basis = torch.linalg.qr(torch.stack(list(self._held), dim=1)).Q.T.contiguous()
        across = (1 - self._alpha) ** 0.5 * (self._view.dim / self._k) ** 0.5
        leans = step_keys(self._seed, step, count, "gaussian", "lean")
        return [
            Combination(
                [
                    (key, self._alpha**0.5),
                    *(
                        (Fixed(row), across * w)
                        for row, w in zip(basis, self._draw(lean), strict=True)
                    ),
                ]
            )
            for key, lean in zip(keys, leans, strict=True)
        ]

    def find(self, place: InPlace, step: int) -> Found:
        found = self._values.find(place, step)
        estimate = found.estimate.vector(self._view.total, device=self._reached.device)
        if bool(estimate.any()):  # a step of which nothing is known leads nowhere
            self._held.append(estimate * self._reached)
        return found

    def _draw(self, lean: Direction) -> list[float]:
        return lean.draw(0, self._k).tolist()
