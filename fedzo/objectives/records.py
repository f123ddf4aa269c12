"""Losses of single records in one program, in which no record can depend on another."""

from collections.abc import Callable

import torch
from jaxtyping import Float
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
    """Return what is asked of each of so many records, by a number that is a tensor without axes.

    Raises ConfigError where torch cannot map what works for a single record.
    """
    index = torch.arange(count, device=device)
    try:
        mapped: Tensor = torch.func.vmap(ask, chunk_size=_TOGETHER)(index)
        return mapped
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise_unmapped(lambda: ask(index[0]), error)
        raise


def raise_unmapped(alone: Callable[[], object], error: RuntimeError) -> None:
    """Raise ConfigError where a single record can be asked, and what that raises where not."""
    alone()
    raise ConfigError(f"{UNMAPPED} ({str(error).partition(chr(10))[0]:.120})") from error
