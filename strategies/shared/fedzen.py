"""A Newton method on shared directions that learns the Hessian row by row (FedZeN-style).

    s_k = mean_i [f_i(x + mu u_k) - f_i(x - mu u_k)] / (2 mu)
    c_k = mean_i [f_i(x + mu u_k) - 2 f_i(x) + f_i(x - mu u_k)] / mu^2         (u_k^T hess F u_k)
    H <- H + sum_k (c_k - u_k^T H u_k) u_k u_k^T;   x <- P(x - lr |H|^-1 sum_k s_k u_k)

After Maritan, Dey & Schenato, "FedZeN: Quadratic Convergence in Zeroth-Order Federated Learning via
Incremental Hessian Estimation", arXiv 2309.17174; their text was not at hand, so this follows the
idea and not the letter. H starts as the mean curvature of the first block times the identity; |H|
takes the absolute eigenvalues, at least 1e-3 of the largest, so that the step goes downhill; the
gradient is known, and the step taken, in the span of the round's directions, as in block-coordinate
descent. Probes are centered so far from the border of the box that all of them are inside: a
clipped point would spoil the second difference. Shapes: x [d], H [d, d]. Floats a client and round:
d + 1 down, 2 m + 1 up. Queries: 2 m + 1. Cost: d^3 a round, so it is for small problems.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.objectives.oracle import project
from fedzo.parts import composed, part
from fedzo.protocol.questions.probes import ProbesConfig
from fedzo.used_with import UsedWith, other_than
from strategies.core.configured import ConfiguredStrategy
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.safeguard import better
from strategies.shared.shared_probes import probe

_MOST = 10_000
"""Coordinates whose Hessian takes 0.8 GB, and minutes a round to decompose."""


@composed
class FedZeNConfig:
    """Settings: server_lr scales the Newton step; safeguard: see FedAvgConfig."""

    rounds: RoundConfig = part(RoundConfig)
    server_lr: float = 1.0
    safeguard: bool = False
    USED_WITH: ClassVar[UsedWith] = {
        "client.estimator": other_than("strategy", "fedzen"),
    }

    def __post_init__(self) -> None:
        require(0 < self.server_lr <= 2, "server_lr", self.server_lr, "in (0, 2]")


@dataclass(frozen=True, slots=True)
class FedZeNState:
    """The global x, the Hessian estimate, empty before the first round, and the next row."""

    x: Float[Tensor, " d"]
    hessian: Float[Tensor, "h h"]
    next_row: int = 0


class FedZeN(ConfiguredStrategy[FedZeNConfig, ProbesConfig, FedZeNState]):
    """Newton steps with a Hessian learned from shared directions."""

    needs_own_x = True
    client_config = ProbesConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> FedZeNState:
        require(
            len(x) <= _MOST,
            "the dimension of x",
            len(x),
            f"at most {_MOST:,} for fedzen, which holds and decomposes a matrix of d x d numbers"
            f" ({len(x) ** 2 * 8 / 2**30:.0f} GiB here); take seedzo, with the same directions",
        )
        return FedZeNState(x, torch.empty(0, 0, dtype=torch.float64))

    def round(self, state: FedZeNState, plan: RoundPlan) -> Round[FedZeNState]:
        mu, settings = self._client.mu, replace(self._client, estimator="central")
        reach = mu * math.sqrt(2 / len(state.x))
        center = project(state.x, plan.lower + reach, plan.upper - reach)
        probed = yield from probe(center, plan, state.next_row, settings, base=True)
        if probed is None:
            return state
        u, m = probed.directions, len(probed.directions)
        base, plus, minus = probed.values.mean(dim=0).split([1, m, m])
        hessian = learn_hessian(state.hessian, u, (plus - 2 * base + minus) / mu**2)
        gradient = ((plus - minus) / (2 * mu)) @ u
        step = self._config.server_lr * newton_step(hessian, gradient)
        x = project(center - step.to(state.x), plan.lower, plan.upper)
        if self._config.safeguard:
            x = yield from better(state.x, x, plan)
        return FedZeNState(x, hessian, probed.next_row)


def learn_hessian(
    hessian: Float[Tensor, "h h"], u: Float[Tensor, "m d"], curvatures: Float[Tensor, " m"]
) -> Float[Tensor, "d d"]:
    """Return the estimate corrected along orthonormal directions, from isotropic at first."""
    if not hessian.numel():
        hessian = curvatures.mean() * torch.eye(u.shape[1], dtype=u.dtype)
    surprise = curvatures - ((u @ hessian) * u).sum(dim=1)
    return hessian + (u.T * surprise) @ u


def newton_step(
    hessian: Float[Tensor, "d d"], gradient: Float[Tensor, " d"]
) -> Float[Tensor, " d"]:
    """Return |H|^-1 g with eigenvalues of at least 1e-3 of the largest; g where H is zero."""
    values, vectors = torch.linalg.eigh(hessian)
    size = values.abs()
    largest = float(size.max())
    if largest == 0:
        return gradient
    inverse = 1 / size.clamp_min(1e-3 * largest)
    result: Tensor = vectors @ (inverse * (vectors.T @ gradient))
    return result
