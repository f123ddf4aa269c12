"""Thompson sampling over the windows of an image: Square attack that has learned where and what.

    g ~ posterior of the gradient given all changes of the loss so far (fedzo.surrogates.waves)
    proposal = delta but for the window of side h that promises most, where each value is at the
               end of the box that g asks for;    h by the schedule of Square attack
    accept if the loss falls;  row: (proposal - incumbent, change)

On 224 x 224 photographs a proposal that changes the whole image at once (the attacker `thompson`)
says little: networks' gradients are smooth over a few pixels alone, here a fortieth of the image,
and the answer is a sum over hundreds of independent blobs. A window's answer is of its own blobs,
and the next is put where the posterior promises most. The start is Square attack's, vertical
stripes, which fools networks of photographs now and then by itself. Measured on EfficientNet-Lite0,
it is level with Square attack (docs/results/attacks.md).

fedzo's own; Andriushchenko et al., "Square Attack", ECCV 2020 (start, schedule), Russo, Van Roy et
al., "A Tutorial on Thompson Sampling", 2018, section 4. Shapes: delta [d]. Cost: a query a step;
its time that of a sample and of d numbers a few times.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Search, Task
from fedzo.attacks.attackers.square import ends, square_side, stripes
from fedzo.attacks.region import Region
from fedzo.config import check_types, require
from fedzo.errors import ConfigError
from fedzo.surrogates.waves import WavePrior, WaveRows


@dataclass(frozen=True, slots=True, kw_only=True)
class ThompsonSquare:
    """The attacker `thompson_square`, for victims that tell scores; norm linf.

    area: first share of the image that a window covers. lengthscale: of the prior, as a share of
    the image's shorter side. noise: of a row, relative to its prior deviation. spread: of samples
    around the mean, 1 for the posterior's own. max_rows: newest rows that are kept.
    """

    area: float = 0.2
    lengthscale: float = 0.027
    noise: float = 1.0
    spread: float = 1.0
    max_rows: int = 1000

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.area <= 1, "area", self.area, "in (0, 1]")
        require(0 < self.lengthscale <= 1, "lengthscale", self.lengthscale, "in (0, 1]")
        require(0 < self.noise < math.inf, "noise", self.noise, "positive and finite")
        require(0 <= self.spread < math.inf, "spread", self.spread, "0 or more, and finite")
        require(self.max_rows >= 2, "max_rows", self.max_rows, "at least 2")

    def search(self, task: Task) -> Search:
        region, generator = task.region, task.generator
        _check_norm(region)
        low, high = ends(region)
        prior = WavePrior(region.shape, self.lengthscale * min(region.shape[1:]))
        rows = WaveRows(prior.dim, most=self.max_rows, noise=self.noise)
        delta = stripes(low, high, region.shape, generator=generator)
        reply = yield delta.unsqueeze(0)
        best, step = float(reply.losses[0].nan_to_num(torch.inf)), 1
        while True:
            h = square_side(step / task.query_budget, self.area, min(region.shape[1:]))
            white = rows.sample(spread=self.spread, generator=generator)
            gradient = prior.color(white).to(delta)
            wanted = torch.where(gradient > 0, low, high)
            proposal = _in_best_window(delta, wanted, gradient, region.shape, h)
            reply = yield proposal.unsqueeze(0)
            loss = float(reply.losses[0])
            if math.isfinite(loss - best):
                rows.add(prior.adjoint(proposal - delta), loss - best)
            if loss < best:
                delta, best = proposal, loss
            step += 1


def _check_norm(region: Region) -> None:
    if region.norm != "linf":
        raise ConfigError(
            f"attacker thompson_square is for norm linf, not {region.norm}; use square or thompson"
        )


def _in_best_window(
    delta: Float[Tensor, " d"],
    wanted: Float[Tensor, " d"],
    gradient: Float[Tensor, " d"],
    shape: tuple[int, int, int],
    h: int,
) -> Float[Tensor, " d"]:
    """Return delta with the window of side h that promises the lowest loss as it is wanted."""
    change = ((wanted - delta) * gradient).reshape(shape).sum(dim=0)
    sums = torch.nn.functional.pad(change.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    promise = sums[h:, h:] - sums[:-h, h:] - sums[h:, :-h] + sums[:-h, :-h]
    top, left = divmod(int(promise.argmin()), promise.shape[1])
    window = (slice(None), slice(top, top + h), slice(left, left + h))
    proposal = delta.clone().reshape(shape)
    proposal[window] = wanted.reshape(shape)[window]
    return proposal.reshape(-1)
