"""Forward passes of one step that draw the same at random: differences are the parameters' alone.

Dropout draws from torch's global generators, as in any training. Every pass of a step starts from
the state of the first, so a step takes from them what one pass would. Where nothing is drawn, no
state is set; what other threads draw from the same generators meanwhile, they may draw again.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def same_draws(places: Iterable[Tensor]) -> Callable[[], None]:
    """Return a function that puts the generators back to where they are now.

    places: tensors on the devices whose generators are meant, beside that of the CPU.
    """
    devices = sorted({tensor.device.index or 0 for tensor in places if tensor.is_cuda})
    here, away = torch.get_rng_state(), {i: torch.cuda.get_rng_state(i) for i in devices}

    def again() -> None:
        if not torch.equal(torch.get_rng_state(), here):
            torch.set_rng_state(here)
        for i, state in away.items():
            torch.cuda.set_rng_state(state, i)

    return again
