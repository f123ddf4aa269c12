"""MeZO and what differs from it in one part: signs, momentum, Adam, acceptance, tangents, blocks.

Malladi, Gao, Nichani, Damian, Lee, Chen & Arora, "Fine-Tuning Language Models with Just Forward
Passes" (MeZO), NeurIPS 2023; Zhang et al., "Revisiting Zeroth-Order Optimization for
Memory-Efficient LLM Fine-Tuning: A Benchmark", ICML 2024 (the variants).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from fedzo.config import OneOf
from fedzo.estimation.keys import Law
from fedzo.estimation.schemes import SCHEMES
from fedzo.estimation.view import View
from fedzo.finetuning.accepting import BestOfThree
from fedzo.finetuning.changing import to_signs
from fedzo.finetuning.finding import ByTangents, ByValues
from fedzo.finetuning.methods.method import AT_LEAST_1, FACTOR, Allowed, Method, Recipe
from fedzo.finetuning.moving import ByTorch, ReplayedMomentum, named_optimizer
from fedzo.finetuning.samplers import Blocks, Keyed
from fedzo.finetuning.shaping import Shaping, normalized, signed


@dataclass(frozen=True, slots=True, kw_only=True)
class MeZO(Method):
    """Malladi et al., algorithm 1: central differences along normals, plain steps.

    estimator: forward, central or residual (Zhang, Zhou, Ji & Zavlanos, 2022: one ask a direction).
    directions: normals as published, or signs (rademacher).
    """

    estimator: Annotated[str, OneOf(SCHEMES, lambda scheme: not scheme.axes)] = "central"
    directions: Law = "gaussian"

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(finder=self._finder(seed))

    def _finder(self, seed: int, shape: Shaping | None = None) -> ByValues:
        sampler = Keyed(seed, self.directions)
        scheme = SCHEMES[self.estimator]
        return ByValues(sampler, scheme, self.mu, self.num_directions, shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZOSGD(MeZO):
    """MeZO along keyed signs, the cheapest directions: same moments, less to draw."""

    directions: Law = "rademacher"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZOMomentum(ZOSGD):
    """ZO-SGD-MMT: heavy ball, replayed from keys and numbers (fedzo.finetuning.moving)."""

    momentum: float = 0.9
    window: int = 64

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"momentum": FACTOR, "window": AT_LEAST_1}

    def recipe(self, view: View, seed: int) -> Recipe:
        mover = ReplayedMomentum(self.momentum, self.window)
        return Recipe(finder=self._finder(seed), mover=mover)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZOAdam(ZOSGD):
    """ZO-Adam: torch's Adam on the estimate. Memory: gradient and two moments of length d."""

    beta1: float = 0.9
    beta2: float = 0.999

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"beta1": FACTOR, "beta2": FACTOR}

    def recipe(self, view: View, seed: int) -> Recipe:
        adam = named_optimizer("Adam", betas=(self.beta1, self.beta2))
        return Recipe(finder=self._finder(seed), mover=ByTorch(view, adam))


@dataclass(frozen=True, slots=True, kw_only=True)
class ZOSign(ZOSGD):
    """ZO-SGD-Sign: x <- x - lr sign(c) u as in the benchmark's code, or, `elementwise`, lr sign(g)
    (Liu, Chen, Chen & Hong, "signSGD via Zeroth-Order Oracle", ICLR 2019).
    """

    elementwise: bool = False

    def recipe(self, view: View, seed: int) -> Recipe:
        if not self.elementwise:
            return Recipe(finder=self._finder(seed, signed))
        mover = ByTorch(view, named_optimizer("SGD"), to_signs)
        return Recipe(finder=self._finder(seed), mover=mover)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZOConservative(ZOSGD):
    """ZO-SGD-Cons: the best of x, x - lr g and x + lr g. Cost: 3 asks more."""

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(finder=self._finder(seed), acceptance=BestOfThree())


@dataclass(frozen=True, slots=True, kw_only=True)
class FZOO(Method):
    """ "FZOO: Fast Zeroth-Order Optimizer for Fine-Tuning Large Language Models towards
    Adam-Scale Speed", ICLR 2026 (2506.09034): one-sided signs, steps over their spread.
    """

    num_directions: int = 8

    def recipe(self, view: View, seed: int) -> Recipe:
        sampler, scheme = Keyed(seed), SCHEMES["forward"]
        return Recipe(finder=ByValues(sampler, scheme, self.mu, self.num_directions, normalized))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardGradient(Method):
    """Exact slopes by forward-mode differentiation: `mu` is not used, the loss must be torch's."""

    directions: Law = "rademacher"
    asks_values: ClassVar[bool] = False

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(finder=ByTangents(Keyed(seed, self.directions), self.num_directions))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockZO(Method):
    """Block-wise: every step asks along a direction of its own for each of `blocks` parts."""

    blocks: int = 4

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"blocks": AT_LEAST_1}

    def recipe(self, view: View, seed: int) -> Recipe:
        sampler = Blocks(seed, view.blocks(self.blocks))
        return Recipe(finder=ByValues(sampler, SCHEMES["central"], self.mu, self.num_directions))
