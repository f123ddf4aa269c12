"""Forward passes of one step that draw the same at random: differences are the parameters' alone.

Dropout draws from torch's global generators, as in any training. Every pass of a step starts from
the state of the first, so a step takes from them what one pass would.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def same_draws(places: Iterable[Tensor]) -> Callable[[], None]:
    """Return a function that puts the generators back to where they are now.

    places: tensors on the devices whose generators are meant, beside that of the CPU.
    """
    devices = sorted({tensor.device.index or 0 for tensor in places if tensor.is_cuda})
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(i) for i in devices)]

    def again() -> None:
        torch.set_rng_state(states[0])
        for i, state in zip(devices, states[1:], strict=True):
            torch.cuda.set_rng_state(state, i)

    return again
