"""Settings of FZooS in all its variants."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from fedzo.config import require, require_nonnegative
from fedzo.parts import composed, part
from fedzo.surrogates.kernels import KernelName
from fedzo.surrogates.slopes import SlopePrior
from fedzo.used_with import UsedWith, one_of
from strategies.core.robust import RobustConfig
from strategies.core.rounds import RoundConfig
from strategies.core.step_config import LocalConfig

Variant = Literal["improved", "on_client", "paper", "official"]

_SLOPES = one_of("variant", "improved", "on_client")
_LOCAL = one_of("variant", "on_client", "paper", "official")
_IMPROVED = one_of("variant", "improved")
_PUBLISHED = one_of("variant", "paper", "official")


@composed
class FZooSConfig:
    """Settings of FZooS.

    variant: "improved" (strategies.surrogate.fzoos_improved); "on_client", the same without values
    leaving the clients (strategies.surrogate.fzoos_on_client); "paper" or "official"
    (strategies.surrogate.fzoos_paper).

    improved, on_client: num_directions a client and round; probe_radius: root mean square offset of
    a coordinate, in units of x; kernel and max_rows of the surrogate; initial_step times sqrt(dim)
    is the unit of its lengthscales.
    improved: initial_step, max_step, min_step: how far a virtual step moves a coordinate, in units
    of x (min_step 0: a millionth of initial_step). step_rule: "normalized" steps along the
    gradient, "sign" along its signs. line_search: virtual steps after which clients are asked.
    curvature: whether the surrogate may have an isotropic quadratic trend. lengthscale: where x is
    a square image, the pixels over which gradients are taken to be smooth, and probes are; 0: not
    at all. design: whether clients
    probe the same directions or their own; "auto" decides every round, with shared ones at least
    every shared_every rounds; private_gain: by what factor private directions must explain more.
    With an aggregator other than the mean, directions are always shared.
    on_client, paper, official: local_steps and local_lr (Adam) of each client.
    paper, official: one_exchange: send weights with the update, no queries around the server's x.
    """

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    variant: Variant = "improved"
    num_directions: int = 50
    probe_radius: float = 0.02
    initial_step: float = 0.03
    max_step: float = 0.1
    min_step: float = 0.0
    step_rule: Literal["normalized", "sign"] = "normalized"
    line_search: str = "1,3,6,10"
    kernel: KernelName = "matern52"
    max_rows: int = 400
    curvature: bool = True
    lengthscale: float = 0.0
    design: Literal["auto", "shared", "private"] = "auto"
    shared_every: int = 8
    private_gain: float = 2.0
    local: LocalConfig = part(LocalConfig)
    one_exchange: bool = False
    USED_WITH: ClassVar[UsedWith] = {
        **dict.fromkeys(
            ("num_directions", "probe_radius", "initial_step", "kernel", "max_rows"), _SLOPES
        ),
        **dict.fromkeys(("max_step", "min_step", "step_rule", "line_search"), _IMPROVED),
        **dict.fromkeys(("lengthscale", "curvature", "design"), _IMPROVED),
        **dict.fromkeys(
            ("shared_every", "private_gain"),
            (_IMPROVED, one_of("design", "auto"), one_of("aggregator", "mean")),
        ),
        **dict.fromkeys(("local_steps", "local_lr"), _LOCAL),
        "one_exchange": _PUBLISHED,
        "client.*": _PUBLISHED,
    }

    def __post_init__(self) -> None:
        for name in ("num_directions", "max_rows", "shared_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("probe_radius", "initial_step", "max_step", "private_gain"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "positive and finite")
        require_nonnegative("lengthscale", self.lengthscale)
        if not self.robust.rule.is_mean:
            require(
                self.variant != "improved" or self.design != "private",
                "design",
                self.design,
                f"auto or shared with aggregator={self.robust.aggregator!r}: a robust rule compares"
                " what clients answer at the same points",
            )
        self.stops()
        step = self.initial_step
        low = self.min_step
        require(0 <= low <= step, "min_step", low, f"at least 0, at most initial_step={step}")
        require(step <= self.max_step, "initial_step", step, f"at most max_step={self.max_step}")

    def stops(self) -> tuple[int, ...]:
        """Return the stops of the line search; raises ConfigError unless they ascend from 1."""
        try:
            stops = tuple(int(part) for part in self.line_search.split(","))
        except ValueError:
            stops = (0,)
        ascending = stops[0] >= 1 and all(a < b for a, b in pairwise(stops))
        require(ascending, "line_search", self.line_search, "ascending numbers such as 1,3,6,10")
        return stops

    def least_step(self) -> float:
        """Return the step below which the line search does not go."""
        return self.min_step or 1e-6 * self.initial_step

    def probe_length(self, dim: int) -> float:
        """Return the length of a probe's offset."""
        return self.probe_radius * math.sqrt(dim)

    def unit(self, dim: int) -> float:
        """Return the length of the first virtual step: the scale that all lengthscales start at."""
        return self.initial_step * math.sqrt(dim)

    def first_lengthscale(self, dim: int) -> float:
        """Return the lengthscale before anything is known."""
        return 16 * self.unit(dim)

    def bounded_lengthscale(self, lengthscale: float, dim: int) -> float:
        """Return the nearest lengthscale that a fit may choose."""
        return min(max(lengthscale, self.unit(dim) / 8), 256 * self.unit(dim))

    def grids(
        self, prior: SlopePrior, dim: int, *, fit_rho: bool
    ) -> list[tuple[str, Sequence[float]]]:
        """Return the values that a fit tries: around the current ones, and zero."""
        unit = self.unit(dim)
        lengths = {self.bounded_lengthscale(prior.lengthscale * 2.0**k, dim) for k in range(-3, 4)}
        grids: list[tuple[str, Sequence[float]]] = [("lengthscale", sorted(lengths))]
        if self.curvature:
            around = [max(prior.curvature, 1 / unit) * 4.0**k for k in range(-2, 3)]
            grids.append(("curvature", [0.0, *(c for c in around if c * unit <= 64)]))
        if fit_rho:
            grids.append(("rho", [1 / 3, 1.0, 3.0, 10.0, 30.0]))
        grids.append(("noise", [0.0, *(unit**2 * 10.0**k for k in range(-7, 1))]))
        return grids
