"""Checkpoints: safetensors files with digests, written atomically, the previous one kept.

A state is a (nested) dataclass of tensors, numbers and strings. Its tensors are stored as they are
and its scalars as JSON in the file's header, so reading executes nothing. A run's checkpoint holds
what changed since the one before, as long as all that it builds on is at most twice the whole
(fedzo.records.checkpoint_files says which files there are): over the rounds, twice what changes is
written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from fedzo.errors import CheckpointError
from fedzo.records.changes import Seen, change, look_at
from fedzo.records.checkpoint_files import (
    CURRENT,
    HEADS,
    OLDER,
    PREVIOUS,
    Basis,
    advance,
    read_head,
    remove_unused,
    to_text,
)
from fedzo.records.storage import replacing, storing
from fedzo.records.tensor_file import write_tensors

StateT = TypeVar("StateT")
SMALL = 1 << 16
"""Bytes of a checkpoint that is not worth a second file."""
MOST_PARTS = 32
"""So many parts, and rounds to repeat when the oldest is damaged."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Named tensors and JSON-able facts."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Written:
    """The current checkpoint as this process wrote it: tensors, digests of its files, and bytes."""

    seen: Seen
    files: tuple[str, ...]
    num_bytes: int


class CheckpointWriter:
    """Writes the checkpoints of a run into a directory where it works alone.

    whole: never write less, so that the previous checkpoint shares nothing with the current.
    """

    def __init__(self, directory: Path, *, whole: bool = False) -> None:
        self._directory = directory
        self._whole = whole
        self._last: _Written | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; at every moment a complete one exists.

        Raises StorageError when the disk is full or fails.
        """
        last, self._last = self._last, None
        tensors, num_bytes = checkpoint.tensors, _size(checkpoint.tensors)
        if self._whole or num_bytes < SMALL:
            self._write(tensors, Basis(), checkpoint.facts)
            return
        seen = look_at(tensors)
        # The first two are whole, so that there is always one to fall back to.
        if last and len(last.files) <= MOST_PARTS and (self._directory / PREVIOUS).exists():
            made = change(last.seen, tensors)
            together = last.num_bytes + _size(made.tensors)
            if together <= 2 * num_bytes:
                basis = Basis(last.files, made.gone)
                digest = self._write(made.tensors, basis, checkpoint.facts)
                self._last = _Written(seen, (*last.files, digest), together)
                return
        digest = self._write(tensors, Basis(), checkpoint.facts)
        self._last = _Written(seen, (digest,), num_bytes)

    def _write(self, tensors: Mapping[str, Tensor], basis: Basis, facts: Mapping[str, Any]) -> str:
        folder = self._directory
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / CURRENT) as fresh:
                digest = write_tensors(fresh, tensors, to_text(basis, facts))
                advance(folder, basis)
            if not basis.parts:
                remove_unused(folder)
        return digest


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a whole checkpoint; at every moment a complete one exists.

    Raises StorageError when the disk is full or fails.
    """
    CheckpointWriter(directory, whole=True).save(checkpoint)


def has_checkpoint(directory: Path, *, name: str = "") -> bool:
    """Return whether a checkpoint, that of this name or any, was completed in this directory."""
    return any((directory / one).exists() for one in ([name] if name else HEADS))


def load_checkpoint(directory: Path, *, name: str = CURRENT) -> Checkpoint:
    """Read a checkpoint.

    Raises CheckpointError when it is missing or damaged, naming the previous one if that is whole.
    """
    try:
        return Checkpoint(*read_head(directory / name))
    except CheckpointError as error:
        remedy = "start again in an empty directory"
        before = (directory / other for other in (PREVIOUS, OLDER) if name == CURRENT)
        if whole := next((path for path in before if _is_whole(path)), None):
            remedy = f"to go on from the one before, move {whole} over it"
        raise CheckpointError(f"checkpoint {error}; {remedy}") from error


def restore_previous(directory: Path) -> Checkpoint:
    """Put the newest whole checkpoint before a damaged one in its place, and return it.

    Raises CheckpointError when there is none.
    """
    name = (
        PREVIOUS if _is_whole(directory / PREVIOUS) or not _is_whole(directory / OLDER) else OLDER
    )
    checkpoint = load_checkpoint(directory, name=name)
    with storing(directory):
        (directory / name).replace(directory / CURRENT)
    return checkpoint


def _is_whole(path: Path) -> bool:
    try:
        read_head(path)
    except CheckpointError:
        return False
    return True


def flatten_state(state: object, prefix: str = "state") -> Checkpoint:
    """Take a nested dataclass apart into tensors and scalars with dotted names."""
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    assert is_dataclass(state)
    for entry in fields(state):
        name, value = f"{prefix}.{entry.name}", getattr(state, entry.name)
        if isinstance(value, Tensor):
            tensors[name] = value
        elif is_dataclass(value):
            part = flatten_state(value, name)
            tensors.update(part.tensors)
            facts.update(part.facts)
        else:
            facts[name] = value
    return Checkpoint(tensors, facts)


def restore_state(template: StateT, checkpoint: Checkpoint, prefix: str = "state") -> StateT:
    """Put a state together again; `template` is any state of the same kind.

    Raises CheckpointError when the checkpoint lacks a part of it.
    """
    assert is_dataclass(template)
    values: dict[str, Any] = {}
    for entry in fields(template):
        name, old = f"{prefix}.{entry.name}", getattr(template, entry.name)
        if is_dataclass(old):
            values[entry.name] = restore_state(old, checkpoint, name)
            continue
        source = checkpoint.tensors if isinstance(old, Tensor) else checkpoint.facts
        if name not in source:
            raise CheckpointError(f"the checkpoint has no {name}; it belongs to another strategy")
        value = source[name]
        values[entry.name] = value.to(old.device) if isinstance(old, Tensor) else value
    kind: Any = type(template)
    return kind(**values)  # type: ignore[no-any-return]


def pack_client_states(states: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Name the tensors of all clients' states for a checkpoint."""
    return {
        f"client.{client}.{name}": tensor
        for client, state in states.items()
        for name, tensor in state.items()
    }


def unpack_client_states(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Find the clients' states among the tensors of a checkpoint."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("client."):
            _, client, name = key.split(".", 2)
            states.setdefault(int(client), {})[name] = tensor
    return states
