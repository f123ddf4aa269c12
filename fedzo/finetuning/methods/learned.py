"""Methods that remember what was asked: curvature, snapshots, past directions, sparse supports.

Each class names its paper; the rooms that they are made of tell the formulas.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fedzo.estimation.view import View
from fedzo.finetuning.curvature import HessianInformed
from fedzo.finetuning.guided import Guided
from fedzo.finetuning.methods.method import (
    AT_LEAST_1,
    FACTOR,
    FROM_0_TO_1,
    NOT_NEGATIVE,
    POSITIVE,
    USELESS,
    Allowed,
    Method,
    Recipe,
)
from fedzo.finetuning.recovery import LeastSquares, SparseRecovery
from fedzo.finetuning.slope_process import SlopeProcess
from fedzo.finetuning.variance_reduced import VarianceReduced


@dataclass(frozen=True, slots=True, kw_only=True)
class HiZOO(Method):
    """Zhao et al., "HiZOO", ICLR 2025 (fedzo.finetuning.curvature). rate: a."""

    rate: float = 1e-8

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"num_directions": USELESS, "rate": FACTOR}

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(finder=HessianInformed(view, seed=seed, mu=self.mu, rate=self.rate))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeZOSVRG(Method):
    """Gautam et al., "Variance-reduced Zeroth-Order Methods for Fine-Tuning Language Models", ICML
    2024 (fedzo.finetuning.variance_reduced). num_directions: at a snapshot.
    """

    period: int = 5

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"period": AT_LEAST_1}

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(
            finder=VarianceReduced(
                view,
                seed=seed,
                mu=self.mu,
                period=self.period,
                num_directions=self.num_directions,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedES(Method):
    """Maheswaranathan et al., "Guided evolutionary strategies", ICML 2019
    (fedzo.finetuning.guided). k: estimates that guide. alpha: share of free noise.
    """

    k: int = 4
    alpha: float = 0.5

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"k": AT_LEAST_1, "alpha": FROM_0_TO_1}

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(
            finder=Guided(
                view,
                seed=seed,
                mu=self.mu,
                num_directions=self.num_directions,
                k=self.k,
                alpha=self.alpha,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReLIZO(Method):
    """Xiao et al., "ReLIZO", NeurIPS 2024 (fedzo.finetuning.recovery).

    window: older slopes that are used again. ridge: lambda, as a share of the mean diagonal.
    """

    num_directions: int = 4
    window: int = 4
    ridge: float = 1e-3

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"window": NOT_NEGATIVE, "ridge": POSITIVE}

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(
            finder=LeastSquares(
                view,
                seed=seed,
                mu=self.mu,
                num_directions=self.num_directions,
                window=self.window,
                ridge=self.ridge,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GPGradient(Method):
    """Shu et al., "Trajectory-Informed Derivative Estimation" (ZoRD), ICLR 2023
    (fedzo.finetuning.slope_process). older: steps whose slopes are used again. ridge: noise, as a
    share of the mean variance. lengthscale: in units of the parameters; 0 for the likeliest.
    """

    num_directions: int = 4
    older: int = 4
    ridge: float = 1e-3
    lengthscale: float = 0.0

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {
        "older": NOT_NEGATIVE,
        "ridge": POSITIVE,
        "lengthscale": NOT_NEGATIVE,
    }

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(
            finder=SlopeProcess(
                view,
                seed=seed,
                mu=self.mu,
                num_directions=self.num_directions,
                older=self.older,
                ridge=self.ridge,
                lengthscale=self.lengthscale,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ZORO(Method):
    """Cai, McKenzie, Yin & Zhang, "Zeroth-Order Regularized Optimization", SIAM J. Optim. 2022,
    (fedzo.finetuning.recovery). sparsity: s. num_directions: about s log d.
    """

    num_directions: int = 64
    sparsity: int = 10

    ALLOWED: ClassVar[Mapping[str, Allowed]] = {"sparsity": AT_LEAST_1}

    def recipe(self, view: View, seed: int) -> Recipe:
        return Recipe(
            finder=SparseRecovery(
                view,
                seed=seed,
                mu=self.mu,
                num_directions=self.num_directions,
                sparsity=self.sparsity,
            )
        )
