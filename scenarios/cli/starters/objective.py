"""Starter: what each client wants to be small, as a black box that can only be asked for values."""

import numpy as np
from numpy.typing import NDArray

from fedzo.objectives.objective import CallableObjective

DIM = 10


def simulated(x: NDArray[np.float64], client: int) -> float:
    """Return one number for the point x [d]: put your simulator, program or measurement here."""
    wanted = np.linspace(-0.5, 0.5, DIM) + 0.1 * client
    return float(np.sum((x - wanted) ** 2) + 0.1 * np.sum(np.cos(8 * x)))


def starter(client: int) -> CallableObjective:
    """Return the objective of a client, counted from 0; F is the mean over clients."""

    def value(x: NDArray[np.float64]) -> float:
        return simulated(x, client)

    return CallableObjective(function=value, dim=DIM, lower=-1.0, upper=1.0)
