"""The optimizers of clients that have gradients: those of all, AdaHessian and MicroAdam."""

from typing import Any

from clients.core.micro_adam import MicroAdam
from fedzo.optimizers import (
    CURVATURE_EPS,
    Adam,
    LocalOptimizerName,
    make_optimizer,
)


def make_local_optimizer(name: LocalOptimizerName, *, momentum: float = 0.0) -> Any:
    """Return the optimizer of that name, as `fedzo.optimizers.make_optimizer` does.

    AdaHessian is Adam whose every step is told the curvature.
    """
    if name == "microadam":
        return MicroAdam(beta1=momentum or 0.9)
    if name == "adahessian":
        return Adam(beta1=momentum or 0.9, eps=CURVATURE_EPS)
    return make_optimizer(name, momentum=momentum)
