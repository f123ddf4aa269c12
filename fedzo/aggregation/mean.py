"""The (weighted) mean.

    mean(v) = sum_i w_i v_i / sum_i w_i

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS
2017, algorithm 1 (w_i = number of examples). Shapes: vectors [n, d], weights [n], result [d]. Cost:
n d additions, no floats of its own.
"""

from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.rows import precise
from fedzo.errors import ConfigError


def mean(
    vectors: Float[Tensor, "n d"],
    *,
    num_byzantine: int = 0,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, " d"]:
    """Return the weighted mean; equal weights by default.

    Raises ConfigError for num_byzantine > 0: the mean withstands nobody.
    """
    if num_byzantine:
        raise ConfigError(
            f"num_byzantine={num_byzantine} must be 0: the mean tolerates no malicious client"
        )
    vectors = precise(vectors)
    if weights is None:
        return vectors.mean(dim=0)
    return (weights.to(vectors) / weights.sum().to(vectors)) @ vectors
