"""Losses of single records in one program, in which no record can depend on another."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.errors import ConfigError

_TOGETHER = 512
"""Records whose losses are computed at once, which bounds memory."""
UNMAPPED = (
    "the losses of single records cannot be computed together by torch.func.vmap, which is what"
    " keeps one from depending on another: likely reasons are recurrent layers of torch, branches"
    " on numbers, and layers that draw while they are asked; set strategy.unit=client, or use"
    " layers without these (GRUCell for GRU)"
)


def of_each(
    ask: Callable[[Tensor], Tensor], count: int, device: torch.device
) -> Float[Tensor, " m"]:
    """Return what is asked of each of so many records; raises as `mapped`."""
    return mapped(ask, torch.arange(count, device=device), alone=ask, together=_TOGETHER)


def mapped(
    ask: Callable[[Tensor], Tensor],
    index: Int[Tensor, " m"],
    *,
    alone: Callable[[Tensor], object],
    together: int | None = None,
) -> Float[Tensor, "m ..."]:
    """Return what is asked of each record, by a number that is a tensor without axes.

    alone: how a single one is asked. together: records at once, None for all. Raises ConfigError
    where torch cannot map what works for a single record, and what that raises where it does not.
    """
    try:
        found: Tensor = torch.func.vmap(ask, chunk_size=together)(index)
        return found
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        alone(index[0])
        why = str(error).partition("\n")[0]
        raise ConfigError(f"{UNMAPPED} ({why:.120})") from error
