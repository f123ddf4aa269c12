"""Gradients solved for: least squares over recent slopes, and sparse recovery.

    least squares   g = U^T (U U^T + lambda I)^-1 c      U [k, d]: the last k directions
    sparse          argmin |Z g - y| over s-sparse g     Z [m, d]: fixed signs, y: slopes along them

Xiao, Wang, Huang, Zhang & Wang, "ReLIZO: Sample Reusable Linear Interpolation-based Zeroth-order
Optimization", NeurIPS 2024; Cai, McKenzie, Yin & Zhang, "Zeroth-Order Regularized
Optimization (ZORO)", SIAM J. Optim. 2022 (2003.13001), with CoSaMP (Needell & Tropp, 2009).

Cost: m forward passes and one a step. Memory: of least squares k slopes, of the sparse one Z with
m d numbers (small d). Differs: f(x) is asked once, not for every direction, as in ZORO's code;
lambda is a share of the mean diagonal; reused slopes are as old as the window, which is stated.
"""

from collections import deque
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.estimation.direction import Direction
from fedzo.estimation.estimate import Estimate
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.place import numbered
from fedzo.estimation.schemes import SCHEMES
from fedzo.estimation.structured import Fixed
from fedzo.estimation.view import View
from fedzo.finetuning.finding import ByValues, Found, Slopes
from fedzo.finetuning.samplers import Keyed, step_keys

_AT_ONCE = 1 << 18
_MOST_NUMBERS = 1 << 28
"""Of Z: 1 GiB."""


class LeastSquares:
    """Finds the smallest gradient that has the last slopes, of which `window` are reused."""

    def __init__(
        self, view: View, *, seed: int, mu: float, num_directions: int, window: int, ridge: float
    ) -> None:
        require(window >= 0, "window", window, "0 or more")
        require(ridge > 0, "ridge", ridge, "positive")
        self._view, self._ridge = view, ridge
        self._new = ByValues(Keyed(seed, "gaussian"), SCHEMES["forward"], mu, num_directions)
        self._held: deque[tuple[Direction, float]] = deque(maxlen=num_directions + window)

    def find(self, place: InPlace, step: int) -> Found:
        new = asked_slopes(self._new, place, step)
        if not new.directions:
            return nothing_found(new.loss)
        self._held.extend(zip(new.directions, new.slopes.tolist(), strict=True))
        directions = [u for u, _ in self._held]
        gram = products(directions, self._view)
        gram += self._ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        known = torch.tensor([c for _, c in self._held], dtype=torch.float64)
        return Found(Estimate(directions, torch.linalg.solve(gram, known)), new.loss)


def asked_slopes(new: ByValues, place: InPlace, step: int) -> Slopes:
    """Ask for the slopes of a step, and return those that are finite."""
    found = new.asked(place, step)
    known = found.slopes.isfinite()
    pairs = zip(found.directions, known.tolist(), strict=True)
    kept = [u for u, is_known in pairs if is_known]
    return Slopes(kept, found.slopes[known].double(), found.loss)


def nothing_found(loss: float) -> Found:
    """Return an estimate that goes nowhere."""
    return Found(Estimate([], torch.empty(0, dtype=torch.float64)), loss)


def products(directions: Sequence[Direction], view: View) -> Float[Tensor, "k k"]:
    """Return the inner products of directions over the numbers of a view."""
    total = torch.zeros(len(directions), len(directions), dtype=torch.float64)
    for tensor, first in zip(view.tensors, view.firsts, strict=True):
        for start in range(first, first + tensor.numel(), _AT_ONCE):
            stop = min(start + _AT_ONCE, first + tensor.numel())
            rows = torch.stack([u.draw(start, stop) for u in directions]).double()
            total += rows @ rows.T
    return total


class SparseRecovery:
    """Finds the sparse gradient that explains slopes along fixed signs."""

    def __init__(
        self, view: View, *, seed: int, mu: float, num_directions: int, sparsity: int
    ) -> None:
        d = view.dim
        require(
            num_directions * d <= _MOST_NUMBERS,
            "num_directions",
            num_directions,
            f"at most {_MOST_NUMBERS // d} for {d:,} numbers, whose directions are all held",
        )
        self._sparsity = sparsity
        self._mu = mu
        self._keys = step_keys(seed, 0, num_directions, "rademacher")
        self._z = torch.stack([_drawn(key, view) for key in self._keys])
        self._view = view

    def find(self, place: InPlace, step: int) -> Found:
        values = place.values(self._keys, SCHEMES["forward"], self._mu)
        y = (values[1:] - values[0]) / self._mu
        known = y.isfinite()
        g = self._placed(cosamp(self._z[known], y[known], self._sparsity))
        one = torch.ones(1, dtype=torch.float64)
        return Found(Estimate([Fixed(g)], one), float(values[0]))

    def _placed(self, g: Float[Tensor, " v"]) -> Float[Tensor, " d"]:
        """Return a gradient over the view's numbers where these are in x."""
        whole, done = torch.zeros(self._view.total, dtype=g.dtype), 0
        for first, tensor in numbered(self._view):
            stop = done + tensor.numel()
            whole[first : first + tensor.numel()] = g[done:stop]
            done = stop
        return whole


def _drawn(key: Direction, view: View) -> Float[Tensor, " v"]:
    """Return a direction's numbers in a view."""
    ranges = [(first, first + tensor.numel()) for first, tensor in numbered(view)]
    return torch.cat([key.draw(*ends, dtype=torch.float64) for ends in ranges])


def cosamp(
    z: Float[Tensor, "m d"], y: Float[Tensor, " m"], sparsity: int, *, rounds: int = 10
) -> Float[Tensor, " d"]:
    """Return an s-sparse g with z g near y."""
    g = torch.zeros(z.shape[1], dtype=z.dtype)
    for _ in range(rounds):
        proxy = z.T @ (y - z @ g)
        count = min(2 * sparsity, len(g))
        support = torch.cat([proxy.abs().topk(count).indices, g.nonzero().flatten()]).unique()
        solved = torch.linalg.lstsq(z[:, support], y.unsqueeze(1), driver="gelsd").solution[:, 0]
        best = solved.abs().topk(min(sparsity, len(solved))).indices
        g = torch.zeros_like(g).index_copy_(0, support[best], solved[best])
    return g
