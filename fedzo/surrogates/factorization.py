"""Cholesky factors of covariances that rounding may have made indefinite."""

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import RunError

_LARGEST = 1e-2


def factorize(covariance: Float[Tensor, "r r"], jitter: float) -> Float[Tensor, "r r"]:
    """Return the factor of K + jitter I, with ten times the jitter as often as it takes.

    Raises RunError when 1e-2 of the mean diagonal is not enough.
    """
    most = _LARGEST * float(covariance.diagonal().mean()) if len(covariance) else 0.0
    factor, info = torch.linalg.cholesky_ex(_raised(covariance, jitter))
    while info and jitter < most:
        jitter *= 10
        factor, info = torch.linalg.cholesky_ex(_raised(covariance, jitter))
    if info or not bool(factor.diagonal().isfinite().all()):
        raise RunError(
            f"the surrogate's covariance of {len(covariance)} rows cannot be factorized; its points"
            " are too close to each other: raise strategy.probe_radius or lower strategy.max_rows"
        )
    result: Tensor = factor
    return result


def _raised(covariance: Float[Tensor, "r r"], jitter: float) -> Float[Tensor, "r r"]:
    raised = covariance.clone()
    raised.diagonal().add_(jitter)
    return raised
