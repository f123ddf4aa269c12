"""FlowOpt: going along a residual instead of a gradient, for a whole sampler as one black box.

    x <- x - eta (f(x) - y)

FlowOpt, 2025 (arXiv 2510.22010): gradient descent on |f(x) - y|^2 / 2 with the unit matrix for the
Jacobian, so f needs as many outputs as inputs. Cost: one call of f a step. It converges near a
solution when |1 - eta l| < 1 for every eigenvalue l of the Jacobian, thus for eta below the least
2 Re l / |l|^2, and for no eta where an eigenvalue has no positive real part. Shapes: x, y [*n].
Differs from the paper's code: any dtype, summed up in that of x; `safe_step` estimates the bound
from pairs of points.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.estimation.keys import Key

Map = Callable[[Tensor], Tensor]


def follow_residual(
    f: Map, y: Float[Tensor, "*n"], x: Float[Tensor, "*n"], *, eta: float, steps: int
) -> Iterator[tuple[Float[Tensor, "*n"], float]]:
    """Yield x after each step and the length of the residual before it.

    Raises ConfigError for an eta that is not positive, and for outputs of another shape than x.
    """
    require(eta > 0, "eta", eta, "positive")
    for _ in range(steps):
        with torch.no_grad():
            residual = f(x) - y
        require(residual.shape == x.shape, "f(x)", tuple(residual.shape), f"of shape {x.shape}")
        x = x - eta * residual.to(x.dtype)
        yield x, float(residual.norm())


def safe_step(
    f: Map, x: Float[Tensor, "*n"], *, radius: float, pairs: int = 8, seed: int = 0
) -> float:
    """Return the least 2 <dx, df> / |df|^2 over random pairs around x; 0 where one is negative.

    For a linear f it bounds eta on the directions that were tried. Cost: pairs + 1 calls.
    """
    with torch.no_grad():
        center, bounds = f(x), list[float]()
        for direction in range(pairs):
            key = Key(seed=seed, parts=("flow",), law="gaussian", direction=direction)
            dx = radius * key.draw(0, x.numel(), device=x.device).view_as(x).to(x.dtype)
            df = f(x + dx) - center
            bounds.append(float(2 * (dx * df).sum() / df.square().sum().clamp(min=1e-30)))
    return max(0.0, min(bounds))
