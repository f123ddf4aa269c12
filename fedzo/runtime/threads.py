"""How torch computes: with as many threads for everybody, because sums round by it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedzo.config import checked, require


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with this many threads, and afterwards with as many as before.

    One is faster for small models and on busy machines. Gradients are computed where they are asked
    for, whatever `torch.no_grad` or `torch.inference_mode` the caller is in.
    """
    count = checked("threads", count, int)
    require(count >= 1, "threads", count, "at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(before)
