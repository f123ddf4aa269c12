"""What all rules do first: leave out what is not finite, and see whether the rest suffices.

A row with a NaN or an inf, or one so long that its square overflows, has distance infinity from
every other one: nobody honest sends it, so it is left out and counts as one of the `num_byzantine`.
Shapes: vectors [n, d].
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fedzo.errors import ConfigError

COLUMNS = 1 << 14
"""Columns that are worked on at once: 100 rows of so many float32 numbers fit into a cache."""


def trusted_rows(
    vectors: Float[Tensor, "n d"], num_byzantine: int
) -> tuple[Float[Tensor, "k d"], int]:
    """Return the finite rows, and how many malicious ones may still be among them.

    Raises ConfigError when num_byzantine is not below half of the rows, or more rows than that are
    not finite.
    """
    require_majority(len(vectors), num_byzantine)
    vectors = precise(vectors)
    finite = finite_rows(vectors)
    lost = len(vectors) - int(finite.sum())
    if lost == 0:
        return vectors, num_byzantine
    if lost > num_byzantine:
        raise ConfigError(
            f"{lost} of {len(vectors)} vectors are not finite (or longer than"
            f" {_longest(vectors):.0e}, so that squares overflow) and num_byzantine={num_byzantine}"
            " may be; raise num_byzantine, or find out who sends them"
        )
    return vectors[finite], num_byzantine - lost


def finite_rows(vectors: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
    """Return which rows are finite, and short enough for squares of their distances to be."""
    vectors = precise(vectors)
    finite: Tensor = torch.linalg.vector_norm(vectors, dim=1) < _longest(vectors)
    return finite


def precise(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return vectors of half precision in float32, for squares of theirs overflow at 256."""
    return vectors if vectors.dtype in (torch.float32, torch.float64) else vectors.float()


def _longest(vectors: Float[Tensor, "n d"]) -> float:
    return float(torch.finfo(vectors.dtype).max ** 0.5 / 8)


def require_majority(num_clients: int, num_byzantine: int) -> None:
    """Raise ConfigError unless 0 <= num_byzantine < n / 2, and say what would do."""
    if num_byzantine < 0:
        raise ConfigError(f"num_byzantine={num_byzantine} must be 0 or more")
    if num_clients <= 2 * num_byzantine:
        raise too_many(num_byzantine, 2 * num_byzantine, num_clients)


def too_many(num_byzantine: int, bound: int, num_clients: int) -> ConfigError:
    """Return the error for a rule that needs more than `bound` clients."""
    return ConfigError(
        f"num_byzantine={num_byzantine} needs more than {bound} clients, got {num_clients}; lower"
        " num_byzantine or raise participation"
    )
