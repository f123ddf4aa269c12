"""Losses of single records: in one program where torch can map them, else one by one."""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import FedzoWarning

_TOGETHER = 512


def of_each(
    ask: Callable[[Tensor], Tensor], count: int, device: torch.device
) -> Float[Tensor, " m"]:
    """Return what is asked of each of so many records, by a number that is a tensor without axes.

    Recurrent layers of torch, branches on numbers and layers that draw at random cannot be mapped.
    """
    index = torch.arange(count, device=device)
    try:
        mapped: Tensor = torch.func.vmap(ask, chunk_size=_TOGETHER)(index)
        return mapped
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # asked one by one, it works or says what is wrong
        tell_unmapped(error)
    return torch.stack([ask(one) for one in index])


def tell_unmapped(error: RuntimeError) -> None:
    """Warn that records are asked one after the other, and why."""
    why = str(error).partition("\n")[0]
    warnings.warn(
        f"records are asked one by one, which is slow: torch cannot ask them together ({why:.120})",
        FedzoWarning,
        stacklevel=3,
    )
