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

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.estimation.directions import DirectionKind, direction_scale
from fedzo.finite import all_finite

EstimatorName = Literal["forward", "central", "residual", "coordinate"]


@runtime_checkable
class Scheme(Protocol):
    """How values at queried points become slopes along directions."""

    @property
    def remembers(self) -> bool:
        """Whether slopes need the values of the step before."""
        ...

    def num_queries(self, num_directions: int) -> int:
        """Return q, the queries a step costs each client."""
        ...

    def offsets(self, num_directions: int) -> list[tuple[int, int]]:
        """Return a direction and a multiple of mu, x + multiple mu u, for each point to query."""
        ...

    def points(
        self, x: Float[Tensor, "n d"], directions: Float[Tensor, "n m d"], mu: float
    ) -> Float[Tensor, "n q d"]:
        """Return the points to query."""
        ...

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
        ...


class Forward:
    """Forward differences with one shared base value."""

    remembers = False

    def num_queries(self, num_directions: int) -> int:
        return num_directions + 1

    def offsets(self, num_directions: int) -> list[tuple[int, int]]:
        return [(0, 0)] + [(i, 1) for i in range(num_directions)]

    def points(
        self, x: Float[Tensor, "n d"], directions: Float[Tensor, "n m d"], mu: float
    ) -> Float[Tensor, "n q d"]:
        base = x.unsqueeze(1)
        return torch.cat([base, torch.add(base, directions, alpha=mu)], dim=1)

    def slopes(
        self,
        values: Float[Tensor, "n q"],
        mu: float,
        memory: Float[Tensor, "n m"] | None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "n m"]:
        return (values[:, 1:] - values[:, :1]).to(dtype or values.dtype) / mu


class Central:
    """Central differences: exact for quadratics, whatever mu."""

    remembers = False

    def num_queries(self, num_directions: int) -> int:
        return 2 * num_directions

    def offsets(self, num_directions: int) -> list[tuple[int, int]]:
        return [(i, side) for side in (1, -1) for i in range(num_directions)]

    def points(
        self, x: Float[Tensor, "n d"], directions: Float[Tensor, "n m d"], mu: float
    ) -> Float[Tensor, "n q d"]:
        offsets = mu * directions
        return x.unsqueeze(1) + torch.cat([offsets, -offsets], dim=1)

    def slopes(
        self,
        values: Float[Tensor, "n q"],
        mu: float,
        memory: Float[Tensor, "n m"] | None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "n m"]:
        plus, minus = values.chunk(2, dim=1)
        return (plus - minus).to(dtype or values.dtype) / (2 * mu)


class Residual:
    """One query a direction, compared with the query of the step before."""

    remembers = True

    def num_queries(self, num_directions: int) -> int:
        return num_directions

    def offsets(self, num_directions: int) -> list[tuple[int, int]]:
        return [(i, 1) for i in range(num_directions)]

    def points(
        self, x: Float[Tensor, "n d"], directions: Float[Tensor, "n m d"], mu: float
    ) -> Float[Tensor, "n q d"]:
        return x.unsqueeze(1) + mu * directions

    def slopes(
        self,
        values: Float[Tensor, "n q"],
        mu: float,
        memory: Float[Tensor, "n m"] | None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "n m"]:
        changes = torch.zeros_like(values) if memory is None else values - memory
        return changes.to(dtype or values.dtype) / mu


def make_scheme(name: EstimatorName) -> Scheme:
    """Return the difference scheme of an estimator."""
    schemes: dict[EstimatorName, Scheme] = {
        "forward": Forward(),
        "central": Central(),
        "residual": Residual(),
        "coordinate": Central(),
    }
    return schemes[name]


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
    slopes: Float[Tensor, "n m"], scale: float, *, complete: bool = False
) -> Float[Tensor, "n m"]:
    """Return what each direction is multiplied with: scale c_i / m.

    A slope that is NaN, for want of a value, leaves its direction out of both the sum and m; a
    client without any slope gets zeros. A slope that has overflowed stays infinite. `complete`
    says that no slope is missing, which saves looking.
    """
    if complete or all_finite(slopes):
        return slopes * (scale / slopes.shape[1])
    missing = slopes.isnan()
    used = (~missing).sum(dim=1, keepdim=True).clamp(min=1)
    return slopes.masked_fill(missing, 0.0) * scale / used


def combine(
    coefficients: Float[Tensor, "n m"], directions: Float[Tensor, "n m d"]
) -> Float[Tensor, "n d"]:
    """Return sum_i coefficient_i u_i."""
    return torch.bmm(coefficients.unsqueeze(1), directions).squeeze(1)


def estimator_scale(name: EstimatorName, kind: DirectionKind, dim: int) -> float:
    """Return the factor of an unbiased estimate; the axes of `coordinate` are summed up."""
    return float(dim) if name == "coordinate" else direction_scale(kind, dim)
