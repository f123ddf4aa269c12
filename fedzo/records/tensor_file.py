"""Tensors and facts in one safetensors file, with a digest over both.

Reading executes nothing. Files without a digest, of versions before there was one, are read too.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedzo.errors import CheckpointError, StorageError
from fedzo.records.storage import LEFTOVER

_SEALED, _PLAIN = "digest and facts", "facts"
"""One key alone: safetensors writes several in any order, and equal files must be equal bytes."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: str) -> str:
    """Write a file and return its digest.

    Raises StorageError or OSError where the system does not let us.
    """
    own = {name: _plain(tensor.detach().cpu()) for name, tensor in tensors.items()}
    digest = digest_of(own, facts)
    try:
        with TemporaryDirectory(dir=path.parent, suffix=LEFTOVER) as folder:  # it writes beside
            file = Path(folder) / path.name
            save_file(own, file, metadata={_SEALED: f"{digest} {facts}"})
            usual = Path(folder) / "usual"
            usual.touch()
            file.chmod(usual.stat().st_mode & 0o777)  # safetensors lets nobody else read
            file.replace(path)
    except SafetensorError as error:
        raise StorageError(
            f"{path} cannot be written: {error}; make room or mend it, and go on with --resume"
        ) from error
    return digest


def read_tensors(path: Path, *, digest: str = "") -> tuple[dict[str, Tensor], str]:
    """Return tensors and facts.

    Tensors begin at the same places in memory as fresh ones, for what is computed of one may depend
    on that in its last bit. digest: of the only file that will do. Raises CheckpointError for
    another, and for one that is missing or damaged.
    """
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        path.open("rb").close()  # who may not read it is told "no such file" by the other
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            told: dict[str, str] = dict(file.metadata() or {})
        sealed, facts = _told(told)
        if (sealed or digest) and sealed != digest_of(tensors, facts):
            raise ValueError("its digest does not fit")
        if digest and sealed != digest:
            raise ValueError("it is another file than the one that belongs here")
        return tensors, facts
    except Exception as error:  # who knows what damaged bytes do to a parser
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def read_facts(path: Path) -> str:
    """Return the facts alone, which may be damaged; raises CheckpointError like `read_tensors`."""
    try:
        with safe_open(path, framework="pt") as file:
            return _told(dict(file.metadata() or {}))[1]
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def _told(metadata: Mapping[str, str]) -> tuple[str, str]:
    """Return the digest, empty where there is none, and the facts."""
    if metadata.keys() == {_PLAIN}:
        return "", metadata[_PLAIN]
    if metadata.keys() != {_SEALED}:
        raise ValueError("its header is damaged")
    digest, _, facts = metadata[_SEALED].partition(" ")
    if not digest:
        raise ValueError("its digest is gone")
    return digest, facts


def digest_of(tensors: Mapping[str, Tensor], facts: str) -> str:
    """Return a digest of names, types, shapes, values and facts."""
    digest = hashlib.blake2b(facts.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(octets(tensor).numpy().data)
    return digest.hexdigest()


def octets(tensor: Tensor) -> UInt8[Tensor, " k"]:
    """Return the bytes of a tensor, copied where they do not lie one after another."""
    flat = tensor.detach().flatten()
    return (flat if flat.stride(0) == 1 else _plain(flat)).view(torch.uint8)


def _plain(tensor: Tensor) -> Tensor:
    """Return a copy that lies as a fresh tensor does: of one number, a stride may be anything."""
    return tensor.clone(memory_format=torch.contiguous_format)
