"""Difference schemes: a few values become slopes along directions, slopes become a gradient.

    points:        x, u_1..u_m  ->  the points to query                     [n, q, d]
    slopes:        values       ->  c_i, about <grad f(x), u_i>             [n, m]
    coefficients:  c_i          ->  scale c_i / m                           [n, m]
    gradient:      sum_i coefficient_i u_i                                  [n, d]

| scheme     | c_i                                                 | queries | error     |
|------------|-----------------------------------------------------|---------|-----------|
| forward    | [f(x + mu u_i) - f(x)] / mu                         | m + 1   | O(mu)     |
| central    | [f(x + mu u_i) - f(x - mu u_i)] / (2 mu)            | 2m      | O(mu^2)   |
| residual   | [f(x_t + mu u_i,t) - f(x_t-1 + mu u_i,t-1)] / mu    | m       | see below |
| coordinate | central along every axis e_j                        | 2d      | O(mu^2)   |

Nesterov & Spokoiny, "Random Gradient-Free Minimization of Convex Functions", FoCM 2017, eq. 25, 26
(forward, central); Zhang, Zhou, Ji & Zavlanos, "A new one-point residual-feedback oracle for
black-box learning and control", Automatica 2022 (residual). Shapes: x [n, d], directions [n, m, d].

Because directions are functions of a key, (key, coefficients) is the gradient: m numbers travel
instead of d. Differs from the papers: the base value of the forward scheme is shared by the m
directions; the residual scheme pairs direction i with the value of direction i one step earlier,
and its first step, which has nothing to compare with, returns zero slopes. The residual memory also
spans rounds: it then includes the move of the server, which adds variance but no bias.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import OneOf
from fedzo.errors import ConfigError
from fedzo.estimation.directions import DirectionKind, direction_scale
from fedzo.finite import all_finite
from fedzo.objectives.same_bits import multiplies_row_by_row

Offset = tuple[int, int]
"""Direction i and a multiple k of mu: the point x + k mu u_i."""
BASE: Offset = (0, 0)
"""x itself."""


class Scheme(ABC):
    """How values at points around x become slopes along directions; stateless."""

    remembers: ClassVar[bool] = False
    """Whether slopes need the values of the step before."""
    axes: ClassVar[bool] = False
    """Whether the directions are all axes, whatever a rule's settings say."""

    @abstractmethod
    def offsets(self, num_directions: int) -> Sequence[Offset]:
        """Return where the objective is asked, in the order of the values."""

    @abstractmethod
    def slopes(
        self,
        values: Float[Tensor, "n q"],
        mu: float,
        memory: Float[Tensor, "n m"] | None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "n m"]:
        """Return directional slopes; `memory` holds the values of the step before.

        dtype: of the slopes, that of x; differences are taken in the type of the values.
        """

    def num_queries(self, num_directions: int) -> int:
        """Return q, the queries a step costs each client."""
        return len(self.offsets(num_directions))

    def points(
        self, x: Float[Tensor, "n d"], directions: Float[Tensor, "n m d"], mu: float
    ) -> Float[Tensor, "n q d"]:
        """Return the points to query."""
        base, moves = x.unsqueeze(1), mu * directions
        parts = []
        for multiple, first, stop in _runs(self.offsets(directions.shape[1])):
            away = moves[:, first:stop]
            parts.append(base if multiple == 0 else torch.add(base, away, alpha=multiple))
        return torch.cat(parts, dim=1)


class Forward(Scheme):
    """Forward differences with one shared base value."""

    def offsets(self, num_directions: int) -> Sequence[Offset]:
        return [BASE, *((i, 1) for i in range(num_directions))]

    def slopes(
        self,
        values: Float[Tensor, "n q"],
        mu: float,
        memory: Float[Tensor, "n m"] | None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "n m"]:
        return _as(values[:, 1:] - values[:, :1], dtype) / mu

    def points(
        self, x: Float[Tensor, "n d"], directions: Float[Tensor, "n m d"], mu: float
    ) -> Float[Tensor, "n q d"]:
        """Return the points, rounded once where the others round twice: as published."""
        base = x.unsqueeze(1)
        return torch.cat([base, torch.add(base, directions, alpha=mu)], dim=1)


class Central(Scheme):
    """Central differences: exact for quadratics, whatever mu."""

    def offsets(self, num_directions: int) -> Sequence[Offset]:
        return [(i, side) for side in (1, -1) for i in range(num_directions)]

    def slopes(
        self,
        values: Float[Tensor, "n q"],
        mu: float,
        memory: Float[Tensor, "n m"] | None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "n m"]:
        plus, minus = values.chunk(2, dim=1)
        return _as(plus - minus, dtype) / (2 * mu)


class Coordinate(Central):
    """Central differences along every axis."""

    axes = True


class Residual(Scheme):
    """One query a direction, compared with the query of the step before."""

    remembers = True

    def offsets(self, num_directions: int) -> Sequence[Offset]:
        return [(i, 1) for i in range(num_directions)]

    def slopes(
        self,
        values: Float[Tensor, "n q"],
        mu: float,
        memory: Float[Tensor, "n m"] | None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "n m"]:
        changes = torch.zeros_like(values) if memory is None else values - memory
        return _as(changes, dtype) / mu


SCHEMES: dict[str, Scheme] = {
    "forward": Forward(),
    "central": Central(),
    "residual": Residual(),
    "coordinate": Coordinate(),
}
"""All schemes by the name that `estimator` settings take; one that is added works in all rules."""

EstimatorName = Annotated[str, OneOf(SCHEMES)]
"""The setting of a rule that keeps the values of the step before."""
MemorylessName = Annotated[str, OneOf(SCHEMES, lambda scheme: not scheme.remembers)]
"""The setting of a rule that does not."""
SharedName = Annotated[str, OneOf(SCHEMES, lambda scheme: not (scheme.remembers or scheme.axes))]
"""The setting of a rule whose directions are drawn by somebody else."""


@dataclass(frozen=True, slots=True)
class Differences:
    """Slopes of a function along directions: a scheme and its smoothing radius mu."""

    scheme: Scheme
    mu: float

    @staticmethod
    def named(estimator: str, mu: float) -> "Differences":
        """Return the differences of an `estimator` setting."""
        return Differences(SCHEMES[estimator], mu)

    def points(
        self, x: Float[Tensor, "n d"], directions: Float[Tensor, "n m d"]
    ) -> Float[Tensor, "n q d"]:
        """Return the points to query."""
        return self.scheme.points(x, directions, self.mu)

    def slopes(
        self,
        values: Float[Tensor, "n q"],
        dtype: torch.dtype,
        memory: Float[Tensor, "n m"] | None = None,
    ) -> Float[Tensor, "n m"]:
        """Return the slopes that values at the points stand for."""
        return self.scheme.slopes(values, self.mu, memory, dtype)

    def along(
        self,
        directions: Float[Tensor, "n m d"],
        x: Float[Tensor, "n d"],
        ask: Callable[[Float[Tensor, "n q d"]], Float[Tensor, "n q"]],
    ) -> Float[Tensor, "n m"]:
        """Return the slopes at x of a function, which is asked once."""
        return self.slopes(ask(self.points(x, directions)), x.dtype)


def _as(values: Float[Tensor, "n m"], dtype: torch.dtype | None) -> Float[Tensor, "n m"]:
    """Return values in a type; `Tensor.to` takes a microsecond to find that they are."""
    return values if dtype is None or values.dtype == dtype else values.to(dtype)


def _runs(offsets: Sequence[Offset]) -> list[tuple[int, int, int]]:
    """Return multiple, first and stop of runs of neighboring directions with one multiple."""
    numbered = enumerate(offsets)
    groups = itertools.groupby(numbered, key=lambda item: (item[1][1], item[1][0] - item[0]))
    runs = []
    for (multiple, _), group in groups:
        own = [direction for _, (direction, _) in group]
        runs.append((multiple, own[0], own[-1] + 1))
    return runs


def require_resolved(x: Float[Tensor, "*n d"], mu: float, reach: float = 1.0) -> None:
    """Raise ConfigError where x + mu u is x itself, in most coordinates.

    reach: about how far a direction goes along one coordinate.
    """
    if not bool(((x + mu * reach == x).double().mean() > 0.5).item()):
        return
    kind, longest = str(x.dtype).removeprefix("torch."), float(x.abs().max())
    least = 8 * torch.finfo(x.dtype).eps * longest / reach
    wider = ", or give a float64 start" if x.dtype != torch.float64 else ""
    raise ConfigError(
        f"mu={mu:g} is too small for x in {kind}, with numbers up to {longest:.3g}: x + mu u is x,"
        f" so all slopes would be 0; raise mu to at least {least:.1e}{wider}"
    )


def direction_reach(kind: DirectionKind, dim: int) -> float:
    """Return about how far a direction of this kind goes along a coordinate along which it goes."""
    return dim**-0.5 if kind in ("sphere", "orthogonal") else 1.0


def gradient_coefficients(
    slopes: Float[Tensor, "n m"], scale: float, *, complete: bool = False, axes: bool = False
) -> Float[Tensor, "n m"]:
    """Return what each direction is multiplied with: scale c_i / m.

    A slope that is NaN, for want of a value, leaves its direction out of both the sum and m, but
    out of the sum alone where directions are all `axes`, whose slopes are partial derivatives; a
    client without any slope gets zeros. A slope that has overflowed stays infinite. `complete`
    says that no slope is missing, which saves looking.
    """
    if complete or all_finite(slopes):
        return slopes * (scale / slopes.shape[1])
    missing = slopes.isnan()
    if axes:
        return slopes.masked_fill(missing, 0.0) * (scale / slopes.shape[1])
    used = (~missing).sum(dim=1, keepdim=True).clamp(min=1)
    return slopes.masked_fill(missing, 0.0) * scale / used


def combine(
    coefficients: Float[Tensor, "n m"], directions: Float[Tensor, "n m d"]
) -> Float[Tensor, "n d"]:
    """Return sum_i coefficient_i u_i."""
    if multiplies_row_by_row(directions.dtype, directions.device):
        return torch.bmm(coefficients.unsqueeze(1), directions).squeeze(1)
    return (coefficients.unsqueeze(2) * directions).sum(1)


def estimator_scale(scheme: Scheme, kind: DirectionKind, dim: int) -> float:
    """Return the factor of an unbiased estimate; slopes along all axes are summed up."""
    return float(dim) if scheme.axes else direction_scale(kind, dim)
