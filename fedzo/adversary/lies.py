"""What malicious clients send: pure functions of what the honest ones have sent.

H [h, d] are the honest vectors, m [d] their mean, s [d] their coordinates' standard deviation (n -
1), sigma = sqrt(mean_i |x_i - m|^2) their spread.

| byzantine.attack  | lie                                                                         |
|-------------------|-----------------------------------------------------------------------------|
| sign_flip         | -m                                                                          |
| scaled_sign_flip  | -(h / f) m: honest and lies sum to zero                                     |
| alie              | m + scale s (1.5)                                                           |
| alie_searched     | the same; the scale that does most harm to the aggregate                    |
| inner_product     | -scale m (2)                                                                |
| foe               | (1 - scale) m (0.1)                                                         |
| foe_searched      | m - t sigma m / |m|; the t that does most harm to the aggregate             |
| mimic             | the vector of the first honest client that has answered                     |
| mimic_learned     | that of the honest client furthest from the mean along the learned main axis |
| gaussian          | m + scale sigma times a random vector of length 1, another for every liar   |
| infinity          | infinity everywhere                                                         |
| adaptive          | the most harmful of shifts along s, -m, sign m and the main axis, at any    |
|                   | length, by copies or by lies that differ as honest vectors do               |
| label_flip        | honest work on wrong labels (C - 1 - y), at the client                      |

ALIE: Baruch, Baruch & Goldberg, "A Little Is Enough", NeurIPS 2019. FOE, inner product: Xie, Koyejo
& Gupta, "Fall of Empires", UAI 2019. Mimic: Karimireddy, He & Jaggi, "Byzantine-Robust Learning on
Heterogeneous Datasets via Bucketing", ICLR 2022. Adaptive: after Shejwalkar & Houmansadr,
"Manipulating the Byzantine", NDSS 2021. Harm is |aggregate of H and lies - m|, as in the code of
MoNNA and in byzfl. Searches aggregate `evaluations` times, on a grid of lengths from 0.1 to 10
sigma and around its best; adaptive shares them out to its eight ways, five each at least.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.catalog import LIE_LINES
from fedzo.config import check_types, require
from fedzo.used_with import UsedWith, one_of, other_than

LieName = Literal[
    "none",
    "sign_flip",
    "scaled_sign_flip",
    "alie",
    "alie_searched",
    "inner_product",
    "foe",
    "foe_searched",
    "mimic",
    "mimic_learned",
    "gaussian",
    "infinity",
    "adaptive",
    "label_flip",
]
LIES = LIE_LINES
"""Lies by name, with a line about each."""

DEFAULT_SCALES = {"alie": 1.5, "inner_product": 2.0, "foe": 0.1, "gaussian": 1.0}
SEARCHED = ("alie_searched", "foe_searched", "adaptive")

Defend = Callable[[Float[Tensor, "n d"]], Float[Tensor, "*m d"]]
"""What liars know of the server: vectors, honest ones first, to what it makes of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByzantineConfig:
    """Who lies, and how.

    attack: the lie, see `fedzo list`. num_clients: the last so many of all clients are malicious.
    scale: of the lies that have one, 0 is their usual one. receivers: whether peers (strategy
    monna) are told the same lie, or every second one its mirror image at the honest mean.
    evaluations: how often a searched lie is tried on the aggregator in a round; adaptive at least 4
    times a shift.
    """

    attack: LieName = "none"
    num_clients: int = 0
    scale: float = 0.0
    receivers: Literal["same", "opposite"] = "same"
    evaluations: int = 16
    USED_WITH: ClassVar[UsedWith] = {
        "num_clients": other_than("attack", "none"),
        "scale": one_of("attack", *DEFAULT_SCALES),
        "receivers": (one_of("strategy", "monna"), other_than("attack", "none", "label_flip")),
        "evaluations": one_of("attack", *SEARCHED),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_clients >= 0, "num_clients", self.num_clients, "0 or more")
        require(0 <= self.scale < math.inf, "scale", self.scale, "0 (the usual one) or more")
        require(self.evaluations >= 4, "evaluations", self.evaluations, "at least 4")
        if self.attack != "none":
            require(self.num_clients >= 1, "num_clients", self.num_clients, "at least 1 to attack")

    @property
    def active(self) -> bool:
        """Whether anybody lies."""
        return self.attack != "none" and self.num_clients > 0


@dataclass(frozen=True, slots=True)
class MimicMemory:
    """What a learning mimic knows: the honest mean, the main axis, how many rounds it has seen."""

    mean: Float[Tensor, " d"]
    axis: Float[Tensor, " d"]
    seen: int = 0


def make_lies(
    config: ByzantineConfig,
    honest: Float[Tensor, "h d"],
    count: int,
    *,
    generator: np.random.Generator,
    defend: Defend | None = None,
    memory: MimicMemory | None = None,
) -> Float[Tensor, "f d"]:
    """Return what `count` liars send.

    defend: for the lies that are searched; memory: for mimic_learned. Not for label_flip, which
    happens at the client.
    """
    mean = honest.mean(dim=0)
    scale = config.scale or DEFAULT_SCALES.get(config.attack, 1.0)
    spread = _spread(honest)
    if config.attack == "sign_flip":
        lie = -mean
    elif config.attack == "scaled_sign_flip":
        lie = -len(honest) / count * mean
    elif config.attack == "alie":
        lie = mean + scale * _deviation(honest)
    elif config.attack == "inner_product":
        lie = -scale * mean
    elif config.attack == "foe":
        lie = (1 - scale) * mean
    elif config.attack == "mimic":
        lie = honest[0]
    elif config.attack == "mimic_learned":
        lie = honest[_farthest(honest, memory)]
    elif config.attack == "gaussian":
        return mean + scale * spread * _random_units(count, honest, generator)
    elif config.attack == "infinity":
        lie = torch.full_like(mean, math.inf)
    elif config.attack in SEARCHED:
        return _search(config, honest, count, defend or _mean, generator)
    else:
        lie = mean
    return lie.expand(count, -1)


def learn_mimic(
    memory: MimicMemory | None, honest: Float[Tensor, "h d"], *, generator: np.random.Generator
) -> MimicMemory:
    """Return the memory after a round: one step of the power method, as in the code of MoNNA."""
    mean = honest.mean(dim=0)
    if memory is None:
        return MimicMemory(mean, _random_units(1, honest, generator)[0], seen=1)
    seen = memory.seen + 1
    center = memory.mean + (mean - memory.mean) / seen
    away = honest - center
    fresh = ((away @ memory.axis).unsqueeze(1) * away).sum(dim=0)
    length = float(fresh.norm())
    if length == 0:
        return MimicMemory(center, memory.axis, seen)
    axis = memory.axis * (1 - 1 / seen) + fresh / (length * seen)
    return MimicMemory(center, axis / axis.norm(), seen)


def _farthest(honest: Float[Tensor, "h d"], memory: MimicMemory | None) -> int:
    """Return who sticks out most along the learned axis; the first one before anything is known."""
    if memory is None:
        return 0
    return int(((honest - memory.mean) @ memory.axis).abs().argmax())


def _search(
    config: ByzantineConfig,
    honest: Float[Tensor, "h d"],
    count: int,
    defend: Defend,
    generator: np.random.Generator,
) -> Float[Tensor, "f d"]:
    """Return the lies, at the best of the tried lengths, that move the aggregate furthest."""
    mean, spread = honest.mean(dim=0), _spread(honest)
    noise = spread * _random_units(count, honest, generator)
    ways = _ways(config.attack, honest)
    best, most = mean.expand(count, -1), -1.0
    for axis, share in ways:

        def lies_at(length: float, axis: Tensor = axis, share: float = share) -> Tensor:
            return mean + length * spread * axis + share * noise

        def harm_at(length: float, lies_at: Callable[[float], Tensor] = lies_at) -> float:
            away = defend(torch.cat([honest, lies_at(length)])) - mean
            return float(away.square().sum(dim=-1).mean())

        for length, harm in _climb(harm_at, max(4, config.evaluations // len(ways))):
            if harm > most:
                best, most = lies_at(length), harm
    return best


def _ways(name: LieName, honest: Float[Tensor, "h d"]) -> list[tuple[Float[Tensor, " d"], float]]:
    """Return directions of length 1, and how much the liars' vectors differ beside, in spreads."""
    mean, deviation = honest.mean(dim=0), _deviation(honest)
    if name == "alie_searched":
        return [(_unit(deviation), 0.0)]
    if name == "foe_searched":
        return [(_unit(-mean), 0.0)]
    away = honest - mean
    values, vectors = torch.linalg.eigh(away @ away.T)
    main = _unit(vectors[:, int(values.argmax())] @ away)
    axes = [_unit(deviation), _unit(-mean), _unit(-mean.sign()), main]
    return [(axis, share) for axis in axes for share in (0.0, 0.5)]


def _climb(harm: Callable[[float], float], evaluations: int) -> list[tuple[float, float]]:
    """Return tried lengths and their harm: a geometric grid, then halving steps around the best."""
    grid = np.geomspace(0.1, 10, max(3, (evaluations + 1) // 2))
    tried = [(float(length), harm(float(length))) for length in grid]
    step = float(grid[1] / grid[0])
    while len(tried) < evaluations:
        step = math.sqrt(step)
        best = max(tried, key=lambda pair: pair[1])[0]
        tried += [(best * s, harm(best * s)) for s in (step, 1 / step)]
    return tried


def _mean(vectors: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    return vectors.mean(dim=0)


def _deviation(honest: Float[Tensor, "h d"]) -> Float[Tensor, " d"]:
    """Return the standard deviation of every coordinate; 0 for a single honest client."""
    return honest.std(dim=0) if len(honest) > 1 else torch.zeros_like(honest[0])


def _spread(honest: Float[Tensor, "h d"]) -> float:
    return float((honest - honest.mean(dim=0)).square().sum(dim=1).mean().sqrt())


def _unit(vector: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    length = vector.norm()
    return vector / length if float(length) > 0 else vector


def _random_units(
    count: int, like: Float[Tensor, "h d"], generator: np.random.Generator
) -> Float[Tensor, "f d"]:
    """Return random vectors of length 1."""
    drawn = torch.from_numpy(generator.standard_normal((count, like.shape[1]))).to(like)
    units: Tensor = drawn / drawn.norm(dim=1, keepdim=True)
    return units
