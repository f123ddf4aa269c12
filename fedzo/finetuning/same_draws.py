"""Forward passes of one step that draw the same at random: differences are the parameters' alone.

Dropout draws from torch's global generators, and a closure that picks its batch maybe from numpy's
or Python's, as in any training. Every pass of a step starts from the states of the first, so a step
takes from them what one pass would. Where nothing is drawn, no state is set: what the first pass
did not draw from, the others do not; what other threads draw from the same generators meanwhile,
they may draw again.
"""

import random  # noqa: TID251 (to put back what others draw)
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor


def same_draws(places: Iterable[Tensor]) -> Callable[[], None]:
    """Return a function that puts the generators back to where they are now.

    places: tensors on the devices whose generators are meant, beside those of the CPU.
    """
    devices = sorted({tensor.device.index or 0 for tensor in places if tensor.is_cuda})
    here, away = torch.get_rng_state(), {i: torch.cuda.get_rng_state(i) for i in devices}
    others = [_of_python(), _of_numpy()]
    calls = 0

    def again() -> None:
        nonlocal others, calls
        calls += 1
        if not torch.equal(torch.get_rng_state(), here):
            torch.set_rng_state(here)
        for i, state in away.items():
            torch.cuda.set_rng_state(state, i)
        drawn_from = [put_back for put_back in others if put_back()]
        others = drawn_from if calls == 2 else others  # the first may come before any pass

    return again


def _of_python() -> Callable[[], bool]:
    """Return what puts Python's generator back, and says whether it had been drawn from."""
    here = random.getstate()

    def put_back() -> bool:
        drawn = random.getstate() != here
        if drawn:
            random.setstate(here)
        return drawn

    return put_back


def _of_numpy() -> Callable[[], bool]:
    """Return what puts numpy's generator back, and says whether it had been drawn from."""
    here = np.random.get_state(legacy=False)  # noqa: NPY002 (to put back what others draw)

    def put_back() -> bool:
        now = np.random.get_state(legacy=False)  # noqa: NPY002
        one, other = now["state"], here["state"]
        small = (one["pos"], now["has_gauss"]) != (other["pos"], here["has_gauss"])
        drawn = small or not np.array_equal(one["key"], other["key"])
        if drawn:
            np.random.set_state(here)  # noqa: NPY002
        return drawn

    return put_back
