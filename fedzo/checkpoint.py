"""Checkpoints: one safetensors file, written atomically, the previous one kept.

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

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedzo.errors import CheckpointError

StateT = TypeVar("StateT")
CURRENT, PREVIOUS = "current.safetensors", "previous.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Named tensors and JSON-able facts."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; at every moment a complete one exists."""
    directory.mkdir(parents=True, exist_ok=True)
    own = f"{os.getpid()}-{threading.get_ident()}"
    fresh = directory / f"fresh-{own}.safetensors"
    tensors = {
        name: tensor.detach().clone().contiguous() for name, tensor in checkpoint.tensors.items()
    }
    save_file(tensors, fresh, metadata={"facts": json.dumps(checkpoint.facts)})
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    current = directory / CURRENT
    if current.exists():
        linked = directory / f"linked-{own}.safetensors"
        linked.unlink(missing_ok=True)
        os.link(current, linked)
        linked.replace(directory / PREVIOUS)
    fresh.replace(current)


def has_checkpoint(directory: Path) -> bool:
    """Return whether a checkpoint was ever completed in this directory."""
    return (directory / CURRENT).exists()


def load_checkpoint(directory: Path, *, name: str = CURRENT) -> Checkpoint:
    """Read a checkpoint.

    Raises CheckpointError when it is missing or damaged, naming the previous one if that is whole.
    """
    path = directory / name
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return Checkpoint(tensors, json.loads(file.metadata()["facts"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        remedy = "start again in an empty directory"
        if name == CURRENT and _is_whole(directory / PREVIOUS):
            remedy = f"to go on from the one before, move {directory / PREVIOUS} over it"
        raise CheckpointError(f"checkpoint {path} cannot be read ({error}); {remedy}") from error


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
