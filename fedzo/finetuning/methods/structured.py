"""Methods with directions of a structure: masks, low rank, subspaces, axes, scales.

Each class names its paper; fedzo.finetuning.samplers and .masks tell the formulas.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from fedzo.config import require
from fedzo.estimation.schemes import SCHEMES
from fedzo.estimation.view import View
from fedzo.finetuning.changing import LowVariance, orthogonalize
from fedzo.finetuning.deepzero import SparseCoordinates
from fedzo.finetuning.finding import ByValues
from fedzo.finetuning.masks import MaskKind, draw_mask
from fedzo.finetuning.methods.method import (
    ABOVE_0,
    AT_LEAST_1,
    FACTOR,
    SHARE,
    USELESS,
    Allowed,
    Method,
    Recipe,
)
from fedzo.finetuning.moving import ByTorch, named_optimizer
from fedzo.finetuning.samplers import Keyed, LowRankNoise, MaskedNumbers, Sampler, Subspaces
from fedzo.finetuning.shaping import Shaping, clipped


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseMeZO(Method):
    """Liu et al., "Sparse MeZO", 2024 (2402.15751): only the small weights of each tensor move.

    mask: small as published; random and large for comparison. share: of the numbers that move.
    refresh: steps after which a mask is drawn anew (published: never).
    """

    mask: MaskKind = "small"
    share: float = 0.25
    refresh: int = 1 << 30

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"share": SHARE, "refresh": AT_LEAST_1}

    def recipe(self, view: View, seed: int) -> Recipe:
        sampler = MaskedNumbers(
            Keyed(seed, "gaussian"),
            lambda turn: draw_mask(self.mask, view, self.share, seed=seed, turn=turn),
            self.refresh,
        )
        return Recipe(finder=_central(self, sampler))


@dataclass(frozen=True, slots=True, kw_only=True)
class LOZO(Method):
    """Chen et al., "Enhancing Zeroth-Order Fine-Tuning for Language Models with Low-Rank
    Structures", ICLR 2025 (2410.07698): U V^T, V renewed every `refresh` steps.
    """

    rank: int = 2
    refresh: int = 50

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"rank": AT_LEAST_1, "refresh": AT_LEAST_1}

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(finder=_central(self, LowRankNoise(seed, view, self.rank, self.refresh)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SubZero(Method):
    """Yu et al., "SubZero", 2024 (2410.08989): U Z V^T in bases that stay for `refresh` steps."""

    rank: int = 16
    refresh: int = 1000

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"rank": AT_LEAST_1, "refresh": AT_LEAST_1}

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(finder=_central(self, Subspaces(seed, view, self.rank, self.refresh)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ZOMuon(Method):
    """ZO-Muon (2602.17155), 2026: one-sided subspaces, and the orthogonal factor of the estimate.

    Differs from the code: tensors that are no matrices step with norm lr.
    """

    num_directions: int = 4
    rank: int = 64
    refresh: int = 100

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"rank": AT_LEAST_1, "refresh": AT_LEAST_1}

    def recipe(self, view: View, seed: int) -> Recipe:
        sampler = Subspaces(seed, view, self.rank, self.refresh, one_sided=True)
        finder = ByValues(sampler, SCHEMES["forward"], self.mu, self.num_directions)
        return Recipe(finder=finder, mover=ByTorch(view, named_optimizer("SGD"), orthogonalize))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepZero(Method):
    """Chen et al., "DeepZero: Scaling up Zeroth-Order Optimization for Deep Model Training", ICLR
    2024 (2310.02025): forward differences along a share of the axes, chosen by ZO-GraSP's ratios.

    share: 1 - sparsity. refresh: steps between redraws. num_directions: for the ratios alone.
    central: differences of both sides, at twice the asks.
    """

    mu: float = 5e-3
    num_directions: int = 192
    share: float = 0.1
    refresh: int = 10
    momentum: float = 0.9
    central: bool = False

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {
        "share": SHARE,
        "refresh": AT_LEAST_1,
        "momentum": FACTOR,
    }

    def recipe(self, view: View, seed: int) -> Recipe:
        finder = SparseCoordinates(
            view,
            seed=seed,
            mu=self.mu,
            share=self.share,
            refresh=self.refresh,
            num_directions=self.num_directions,
            scheme=SCHEMES["central" if self.central else "forward"],
        )
        sgd = named_optimizer("SGD", momentum=self.momentum, nesterov=self.momentum > 0)
        return Recipe(finder=finder, mover=ByTorch(view, sgd))


@dataclass(frozen=True, slots=True, kw_only=True)
class CGE(Method):
    """Coordinate-wise central differences with Adam: all numbers of a small module, every step."""

    mu: float = 1e-2

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"num_directions": USELESS}

    def recipe(self, view: View, seed: int) -> Recipe:
        finder = SparseCoordinates(
            view, seed=seed, mu=self.mu, share=1.0, refresh=1, num_directions=1,
            scheme=SCHEMES["central"],
        )  # fmt: skip
        return Recipe(finder=finder, mover=ByTorch(view, named_optimizer("Adam")))


@dataclass(frozen=True, slots=True, kw_only=True)
class QZO(Method):
    """ "Fine-tuning Quantized Neural Networks with Zeroth-order
    Optimization", ICLR 2026 (2505.13430): the scales of quantized weights move, slopes are clipped.

    For modules of fedzo.finetuning.quantized. Scales stay at least 0.
    """

    clip: float = 100.0

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"clip": ABOVE_0}

    def recipe(self, view: View, seed: int) -> Recipe:
        scales = view.select("*scales") if any(n.endswith("scales") for n in view.names) else None
        require(scales is not None, "method", "qzo", "used with a module of quantize_(module)")
        finder = _central(self, Keyed(seed, "gaussian"), clipped(self.clip))
        return Recipe(finder=finder, after=_keep_positive)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZOODiP(Method):
    """Kim et al., "ZOODiP: Memory-Efficient Personalization using Quantized Diffusion Model", CVPR
    2025 (2503.14868), for a few tensors (a token's embedding): forward differences, gradients
    without the directions in which iterates vary least, Adam.
    """

    mu: float = 1e-3
    num_directions: int = 2
    period: int = 128
    kept: float = 0.999

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"period": AT_LEAST_1, "kept": SHARE}

    def recipe(self, view: View, seed: int) -> Recipe:
        finder = ByValues(Keyed(seed, "gaussian"), SCHEMES["forward"], self.mu, self.num_directions)
        change = LowVariance(
            view, period=self.period, kept=self.kept, num_directions=self.num_directions
        )
        return Recipe(finder=finder, mover=ByTorch(view, named_optimizer("Adam", eps=1e-3), change))


def _central(method: Method, sampler: Sampler, shape: Shaping | None = None) -> ByValues:
    return ByValues(sampler, SCHEMES["central"], method.mu, method.num_directions, shape)


def _keep_positive(view: View) -> None:
    with torch.no_grad():
        for name, tensor in zip(view.names, view.tensors, strict=True):
            if name.endswith("scales"):
                tensor.clamp_(min=0.0)
