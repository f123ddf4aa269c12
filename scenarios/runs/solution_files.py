"""x.npy and best_x.npy in a run's directory: arrays that numpy reads without fedzo.

Shape [d] where there is one problem, [problems, d] where there are several of one size, and a file
x-K.npy for each where they differ in it. A run in place leaves none: its x is in modules.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fedzo.records.storage import write_whole
from scenarios.runs.run_result import RunResult

Array = NDArray[Any]


def write_solutions(out: Path, result: RunResult) -> None:
    """Write the last x of every problem, and the best where all problems have one."""
    if result.in_place:
        return
    best = [found.x for found in result.bests if found is not None and found.x is not None]
    whole = len(best) == len(result.solutions)
    for name, positions in (("x", result.solutions), ("best_x", best if whole else [])):
        for path, array in _files(out, name, [_array(x) for x in positions]):
            buffer = io.BytesIO()
            np.save(buffer, array)
            write_whole(path, buffer.getvalue())


def _files(out: Path, name: str, arrays: Sequence[Array]) -> Iterator[tuple[Path, Array]]:
    if len(arrays) == 1:
        yield out / f"{name}.npy", arrays[0]
    elif arrays and len({array.shape for array in arrays}) == 1:
        yield out / f"{name}.npy", np.stack(arrays)
    else:
        for number, array in enumerate(arrays):
            yield out / f"{name}-{number}.npy", array


def _array(x: Float[Tensor, " d"]) -> Array:
    """Return x as numpy can hold it: bfloat16, which it does not have, as float32."""
    kept = x.detach().cpu()
    return (kept.float() if kept.dtype == torch.bfloat16 else kept).numpy()
