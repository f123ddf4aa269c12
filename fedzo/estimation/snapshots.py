"""Parameters on disk every so many steps: who begins anew replays only the rest of the log.

A module that is moved by a log (fedzo.estimation.replay) is made anew from its start and the whole
log, a draw of length d a direction. A snapshot is its parameters and the log that led to them,
exact, so going on from it gives the same bits. The server knows nothing of it: where files are
written is for the owner of the module to say. There is one file a start and stream of directions,
of the size of what is trained; the next replaces it.
"""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from fedzo.config import require
from fedzo.errors import CheckpointError, FedzoWarning, StorageError
from fedzo.objectives.modules import named_trained
from fedzo.records.tensor_file import digest_of, read_tensors, write_tensors

_Log = Float32[Tensor, "held *row"]
_LOG, _OF = "log", "parameter "


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Where those of a module are, every how many steps one is written, and its start's digest."""

    directory: Path
    every: int
    start: str

    def read_(self, module: nn.Module, stream: str, log: Tensor) -> _Log:
        """Move a module to what is on disk, and return how much of a log it then holds.

        Without a snapshot on the way the module stays where it is. Warns of what cannot be read.
        """
        file = self._file(stream)
        if not file.exists():
            return log[:0]
        try:
            tensors, _ = read_tensors(file)
        except CheckpointError as error:
            _warn(f"{error}: the whole log is replayed instead")
            return log[:0]
        held = tensors[_LOG]
        if not torch.equal(held, log[: len(held)]):
            return log[:0]
        with torch.no_grad():
            for name, p in named_trained(module):
                p.copy_(tensors[_OF + name])
        return held

    def last(self, steps: int) -> int:
        """Return the number of the last step, of so many, after which one is written."""
        return steps // self.every * self.every

    def write(self, module: nn.Module, stream: str, held: Tensor) -> None:
        """Write where a module is, and the log that it holds; warns where that cannot be."""
        tensors = {_OF + name: p for name, p in named_trained(module)}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_tensors(self._file(stream), {**tensors, _LOG: held}, stream)
        except (StorageError, OSError) as error:
            _warn(f"no snapshot is written: {error}")

    def _file(self, stream: str) -> Path:
        name = hashlib.blake2b(f"{self.start} {stream}".encode(), digest_size=16)
        return self.directory / f"{name.hexdigest()}.safetensors"


def keep_snapshots(module: nn.Module, directory: str | os.PathLike[str], every: int = 100) -> None:
    """Write a module's parameters every so many steps of a federation that moves it in place.

        network = make_network()
        fedzo.keep_snapshots(network, "snapshots")
        return fedzo.ModuleObjective(network, loss, inputs, targets)

    To be called where the module is made, before anybody moves it, on the machine of the client:
    after a restart `seed_scalar` and its kin then go on from the last snapshot, with the same bits.
    directory: made where it is missing. Raises ConfigError for fewer than one step.
    """
    require(isinstance(every, int) and every >= 1, "every", every, "a number of steps, at least 1")
    start = digest_of({name: p.detach().cpu() for name, p in named_trained(module)}, "")
    _KEPT[module] = Snapshots(Path(directory), every, start)


def snapshots_of(module: nn.Module) -> Snapshots | None:
    """Return where snapshots of a module are kept; None where they are not."""
    return _KEPT.get(module)


def _warn(sentence: str) -> None:
    warnings.warn(sentence, FedzoWarning, stacklevel=2)


_KEPT: WeakKeyDictionary[nn.Module, Snapshots] = WeakKeyDictionary()
