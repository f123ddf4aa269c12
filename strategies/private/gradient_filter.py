"""A gradient estimate from noisy gradients and noisy changes of gradients.

    change only:   v <- v + u                                      u = change + N(0, t^2 I)
    fresh only:    v <- y                                          y = gradient + N(0, s^2 I)
    both:          p <- p + t^2;  k = p / (p + s^2);
                   v <- (1 - k) (v + u) + k y;  p <- (1 - k) p     p: variance of v

The last is Kalman's filter (Kalman, "A New Approach to Linear Filtering and Prediction Problems",
1960) for a gradient whose changes are observed with the noise t, and itself with the noise s; both
are known exactly, so k needs no tuning. It stands between DP-GD (k = 1) and a DIFF2 that never
restarts (k = 0), and remembers the longer the shorter the steps are, since t is proportional to
|dx|. STORM (Cutkosky & Orabona, NeurIPS 2019) has the same form with a k that is tuned. It is made
of what is published, so it costs no privacy. Shapes: v, u, y [d].
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Noisy:
    """A vector with independent Gaussian noise of a known std in each coordinate."""

    vector: Float[Tensor, " d"]
    std: float


def renewed(
    gradient: Float[Tensor, " d"],
    variance: float,
    *,
    fresh: Noisy | None = None,
    change: Noisy | None = None,
) -> tuple[Float[Tensor, " d"], float]:
    """Return the estimate and its variance after a release of one or both kinds."""
    if change is not None:
        gradient = gradient + change.vector
        variance = variance + change.std**2
    if fresh is None:
        return gradient, variance
    total = variance + fresh.std**2
    if change is None or total == 0:
        return fresh.vector, fresh.std**2
    gain = variance / total
    return gradient + gain * (fresh.vector - gradient), (1 - gain) * variance
