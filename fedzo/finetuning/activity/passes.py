"""Forward passes that leave no trace: buffers are put back, dropout is the same on both sides.

In a module that is training, dropout draws from torch's global generator, as in any training: the
second pass starts from the state of the first, so a pair of passes takes what one would.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

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


@contextmanager
def same_dropout(module: nn.Module) -> Iterator[Callable[[], None]]:
    """Give a function after which a training module draws the same dropout once more."""
    if not module.training:
        yield lambda: None
        return
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.is_cuda})
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(i) for i in devices)]

    def again() -> None:
        torch.set_rng_state(states[0])
        for i, state in zip(devices, states[1:], strict=True):
            torch.cuda.set_rng_state(state, i)

    yield again
