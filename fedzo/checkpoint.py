"""Checkpoints: one safetensors file with a digest, written atomically, the previous one kept.

A state is a (nested) dataclass of tensors, numbers and strings. Its tensors are stored as they are
and its scalars as JSON in the file's header, so reading executes nothing. `current.safetensors` is
replaced in one step; `previous.safetensors` is what it was before.
"""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from fedzo.errors import CheckpointError
from fedzo.storage import LEFTOVER, replacing, storing
from fedzo.tensor_file import read_tensors, write_tensors

StateT = TypeVar("StateT")
CURRENT, PREVIOUS = "current.safetensors", "previous.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Named tensors and JSON-able facts."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; at every moment a complete one exists.

    Raises StorageError when the disk is full or fails.
    """
    with storing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(directory / CURRENT) as fresh:
            write_tensors(fresh, checkpoint.tensors, json.dumps(checkpoint.facts))
            if (directory / CURRENT).exists():
                _keep(directory / CURRENT, directory / PREVIOUS)


def _keep(current: Path, previous: Path) -> None:
    """Make the previous checkpoint the current one's other name."""
    linked = previous.with_name(f"{previous.name}.{os.getpid()}-{threading.get_ident()}{LEFTOVER}")
    linked.unlink(missing_ok=True)
    os.link(current, linked)
    linked.replace(previous)
    linked.unlink(missing_ok=True)  # it stays where both names were of one file already


def has_checkpoint(directory: Path, *, name: str = "") -> bool:
    """Return whether a checkpoint, that of this name or any, was completed in this directory."""
    return any((directory / one).exists() for one in ([name] if name else [CURRENT, PREVIOUS]))


def load_checkpoint(directory: Path, *, name: str = CURRENT) -> Checkpoint:
    """Read a checkpoint.

    Raises CheckpointError when it is missing or damaged, naming the previous one if that is whole.
    """
    path = directory / name
    try:
        tensors, facts = read_tensors(path)
        return Checkpoint(tensors, _facts(path, facts))
    except CheckpointError as error:
        remedy = "start again in an empty directory"
        if name == CURRENT and _is_whole(directory / PREVIOUS):
            remedy = f"to go on from the one before, move {directory / PREVIOUS} over it"
        raise CheckpointError(f"checkpoint {error}; {remedy}") from error


def restore_previous(directory: Path) -> Checkpoint:
    """Put the previous checkpoint in the place of a damaged one, and return it.

    Raises CheckpointError when it is missing or damaged too.
    """
    checkpoint = load_checkpoint(directory, name=PREVIOUS)
    with storing(directory):
        (directory / PREVIOUS).replace(directory / CURRENT)
    return checkpoint


def _facts(path: Path, text: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
        if isinstance(facts, dict):
            return facts
        raise ValueError("its facts are no table")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def _is_whole(path: Path) -> bool:
    try:
        load_checkpoint(path.parent, name=path.name)
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
        f"client.{client}.{name}": tensor.clone()
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
