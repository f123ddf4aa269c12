"""Settings of the rule `surrogate`, the client of FZooS as published.

The defaults are those of Shu et al., arXiv 2308.04077, and of their published code.
"""

from dataclasses import dataclass
from typing import Literal

from fedzo.config import check_types, require
from fedzo.surrogates.kernels import KernelName

GammaName = Literal["inverse", "constant", "theory", "data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateConfig:
    """Settings of the rule `surrogate`; only the variants paper and official of FZooS use them.

    kernel: "auto" is what the variant says. lengthscale: of another kernel, 0 fits it. max_points:
    nearest queries of the local surrogate; capacity: queries that a client keeps. num_features,
    feature_lengthscale, feature_points: the transferable surrogate. active_*, anchor_*: queries and
    candidates around each local x and around the server's, active_radius in units of x.
    """

    kernel: Literal["auto"] | KernelName = "auto"
    lengthscale: float = 0.0
    max_points: int = 150
    capacity: int = 1000
    noise_variance: float = 1e-6
    num_features: int = 10000
    feature_lengthscale: float = 1.0
    feature_points: int = 500
    gamma: GammaName = "inverse"
    gamma_value: float = 1.0
    initial_queries: int = 10
    active_queries: int = 5
    active_candidates: int = 100
    active_radius: float = 0.01
    anchor_queries: int = 50
    anchor_candidates: int = 200

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("max_points", "capacity", "num_features", "feature_points", "initial_queries"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("active_queries", "anchor_queries", "gamma_value", "lengthscale"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("noise_variance", "feature_lengthscale", "active_radius"):
            require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        for few, many in (
            ("active_queries", "active_candidates"),
            ("anchor_queries", "anchor_candidates"),
        ):
            most = getattr(self, many)
            require(getattr(self, few) <= most, few, getattr(self, few), f"at most {many}={most}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateTask:
    """What the strategy says: the variant, and whether weights are sent with the update.

    begin: whether these clients are asked for the first time; num_clients: of the federation.
    """

    variant: Literal["paper", "official"] = "paper"
    merged: bool = False
    begin: bool = False
    num_clients: int = 1
