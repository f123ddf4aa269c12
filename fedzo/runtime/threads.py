"""How torch computes: with as many threads for everybody, because sums round by it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedzo.config import checked, require


@contextmanager
def gradients_at_hand() -> Iterator[None]:
    """Let torch compute gradients, though the caller is under `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with this many threads, and afterwards with as many as before.

    One is faster for small models and on busy machines.
    """
    count = checked("threads", count, int)
    require(count >= 1, "threads", count, "at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
