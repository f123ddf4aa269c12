"""The mean over seeds and its standard error, wherever fedzo tells or draws one.

mean = (1/n) sum_i v_i      error = sqrt(sum_i (v_i - mean)^2 / (n - 1)) / sqrt(n)

One seed says nothing of the error, which is NaN then.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mean_and_error(rows: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard error over the first axis; of one row alone, the error is NaN."""
    mean = np.asarray(rows.mean(axis=0))
    if len(rows) < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, np.asarray(rows.std(axis=0, ddof=1) / len(rows) ** 0.5)
