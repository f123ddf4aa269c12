"""Numbers of torch and of numpy's masked arrays, as plain arrays of numpy."""

from typing import Any

import numpy as np
from torch import Tensor


def plain(given: Any) -> Any:
    """Return the numbers of a tensor as an array, in float64 where they are not whole.

    Of a masked array those that are masked are NaN. Anything else is returned as it is.
    """
    if isinstance(given, Tensor):
        kept = given.detach().cpu()
        return (kept.double() if kept.is_floating_point() else kept).numpy()
    if np.ma.is_masked(given):
        return np.ma.filled(given.astype(np.float64), np.nan)
    return given
