"""Tensors and facts in one safetensors file, with a digest over both.

Reading executes nothing. Files without a digest, of versions before there was one, are read too.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedzo.errors import CheckpointError, StorageError

_SEALED, _PLAIN = "digest and facts", "facts"
"""One key alone: safetensors writes several in any order, and equal files must be equal bytes."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: str) -> None:
    """Write a file; raises StorageError or OSError where the system does not let us."""
    own = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(own, path, metadata={_SEALED: f"{_digest(own, facts)} {facts}"})
    except SafetensorError as error:
        raise StorageError(
            f"{path} cannot be written: {error}; make room or mend it, and go on with --resume"
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return tensors and facts; raises CheckpointError for a file that is missing or damaged."""
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            told: dict[str, str] = dict(file.metadata() or {})
        if told.keys() == {_PLAIN}:
            return tensors, told[_PLAIN]
        if told.keys() != {_SEALED}:
            raise ValueError("its header is damaged")
        digest, _, facts = told[_SEALED].partition(" ")
        if digest != _digest(tensors, facts):
            raise ValueError("its digest does not fit")
        return tensors, facts
    except Exception as error:  # who knows what damaged bytes do to a parser
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    """Return a digest of names, types, shapes, values and facts."""
    digest = hashlib.blake2b(facts.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
