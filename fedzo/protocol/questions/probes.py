"""Values around a point, along directions that everybody can make from a seed.

    Probes:      x [d], first row r_i of each client  ->  values [n, q] at the points of a scheme,
                 or, as slopes, the m slopes [n, m] that the scheme makes of them
    directions:  rows r_i .. r_i + m - 1 of an endless sequence of random orthonormal bases

Cost: q queries (forward: m + 1, or m without the base; central: 2 m, or 1 more with it). Sent:
d + 1 floats down, q or m up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from fedzo.config import check_types, require, require_nonnegative
from fedzo.estimation.schemes import BASE, SCHEMES, SharedName
from fedzo.protocol.question import Answer, Cost, Question, Shapes, each, held


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbesConfig:
    """Settings of probes: the difference scheme, its directions and radius, in units of x.

    lengthscale: above 0, x is a square image and directions are smooth over so many pixels.
    on_failure: whether a client "fail"s where its code raises, or is asked again ("retry").
    """

    estimator: SharedName = "forward"
    num_directions: int = 20
    mu: float = 0.01
    lengthscale: float = 0.0
    on_failure: Literal["fail", "retry"] = "fail"

    def __post_init__(self) -> None:
        check_types(self)
        require_nonnegative("lengthscale", self.lengthscale)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < float("inf"), "mu", self.mu, "a positive number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed(Answer):
    """Values at the points asked, or slopes."""

    values: Float[Tensor, "n q"] | None = None
    slopes: Float[Tensor, "n m"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes(Question[Probed]):
    """Values, or slopes, along rows of shared bases; `base`: whether values at x are told too."""

    kind: ClassVar[str] = "query.probes"
    answer: ClassVar[type[Answer]] = Probed
    vectors_down: ClassVar[tuple[str, ...]] = ("x",)

    x: Float[Tensor, " d"]
    first_row: Int[Tensor, " n"] = each()
    estimator: SharedName = "forward"
    num_directions: int
    mu: float
    lengthscale: float
    base: bool
    slopes: bool = False

    def shapes(self) -> Mapping[str, Shapes]:
        if self.slopes:
            return {"slopes": [(self.num_directions,), (0,)]}
        return {"values": [(self._ends + self.base,), (0,)]}

    def cost(self) -> Cost:
        asked = SCHEMES[self.estimator].num_queries(self.num_directions)
        queries = asked if self.slopes else self._ends + self.base
        return Cost(queries=queries, floats=held(len(self.x), self.num_directions))

    @property
    def _ends(self) -> int:
        asked = SCHEMES[self.estimator].offsets(self.num_directions)
        return len(asked) - (BASE in asked)
