"""Forward passes that leave no trace: buffers are put back; and what a closure returns."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fedzo.config import require
from fedzo.errors import ConfigError


@contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Put back what forward passes write into buffers.

    Raises ConfigError for batch normalization that is training: its examples are not independent.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training:
            raise ConfigError(
                f"{name!r} normalizes by the batch, which makes every loss depend on all examples'"
                " noise; call eval() on it, or on the module"
            )
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, copy in before:
            buffer.copy_(copy)


def outputs_and_targets(told: Any) -> tuple[Tensor, Any]:
    """Return what a closure has returned; raises ConfigError for anything else than a pair."""
    shown = f"a tensor {tuple(told.shape)}" if isinstance(told, Tensor) else type(told).__name__
    is_pair = isinstance(told, tuple | list) and len(told) == 2 and isinstance(told[0], Tensor)
    require(
        is_pair and told[0].dim() > 0 and len(told[0]) > 0,
        "closure",
        f"one that returned {shown}",
        "one that returns the module's outputs [b, ...] for at least one example, and targets",
    )
    return told[0], told[1]
