"""The files of a checkpoint: a head, and the parts that it builds on, if any.

A head is a checkpoint whole, its facts a JSON table, or a change (fedzo.records.changes) of the
parts that it names by their digests, oldest first, its facts the JSON list [how it builds on them,
facts]. A part is a head of before under a name made of its digest. Heads:

    current     the newest
    previous    the one before; shares all parts but the last with a current that has any
    older       the last that shares nothing with either; there only where they share

So whatever single file is damaged, one of the three is whole.
"""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fedzo.errors import CheckpointError
from fedzo.records.changes import Change, apply
from fedzo.records.storage import LEFTOVER, sync
from fedzo.records.tensor_file import read_facts, read_tensors

CURRENT, PREVIOUS, OLDER = (f"{name}.safetensors" for name in ("current", "previous", "older"))
HEADS = (CURRENT, PREVIOUS, OLDER)


@dataclass(frozen=True, slots=True)
class Basis:
    """What a head builds on: the digests of parts; gone: names of their tensors that it drops."""

    parts: Sequence[str] = ()
    gone: Sequence[str] = ()


def to_text(basis: Basis, facts: object) -> str:
    """Return what stands in a head beside its tensors."""
    return json.dumps([asdict(basis), facts] if basis.parts else facts)


def from_text(path: Path, text: str) -> tuple[Basis, dict[str, Any]]:
    """Return what a head builds on, and its facts; raises CheckpointError where it says neither."""
    try:
        told = json.loads(text)
        basis, facts = told if isinstance(told, list) else ({}, told)
        if isinstance(facts, dict):
            return Basis(**basis), facts
        raise ValueError("its facts are no table")
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def part(directory: Path, digest: str) -> Path:
    """Return where the part of this digest lies."""
    return directory / f"part-{digest}.safetensors"


def read_head(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and facts of the checkpoint with this head.

    Raises CheckpointError when anything that belongs to it is missing or damaged.
    """
    stored, text = read_tensors(path)
    basis, facts = from_text(path, text)
    if not basis.parts:
        return stored, facts
    tensors: dict[str, Tensor] = {}
    for digest in basis.parts:
        below = part(path.parent, digest)
        found, told = read_tensors(below, digest=digest)
        tensors = _built(below, tensors, found, from_text(below, told)[0])
    return _built(path, tensors, stored, basis), facts


def _built(
    path: Path, tensors: dict[str, Tensor], stored: dict[str, Tensor], basis: Basis
) -> dict[str, Tensor]:
    """Return a part's tensors, given those of the parts below it."""
    try:
        return apply(tensors, Change(stored, basis.gone)) if basis.parts else stored
    except (KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error!r})") from error


def advance(directory: Path, basis: Basis) -> None:
    """Make room for a new current head: give the one there, and those before, their other names."""
    if not (directory / CURRENT).exists():
        return
    if basis.parts:
        link(directory / CURRENT, part(directory, basis.parts[-1]))
    if len(basis.parts) == 1 and (directory / PREVIOUS).exists():
        (directory / PREVIOUS).replace(directory / OLDER)
    link(directory / CURRENT, directory / PREVIOUS)
    sync(directory)


def link(path: Path, name: Path) -> None:
    """Give a file another name, whatever had it before."""
    fresh = name.with_name(f"{name.name}.{os.getpid()}-{threading.get_ident()}{LEFTOVER}")
    fresh.unlink(missing_ok=True)
    os.link(path, fresh)
    fresh.replace(name)
    fresh.unlink(missing_ok=True)  # it stays where both names were of one file already


def remove_unused(directory: Path) -> None:
    """Remove parts that no head builds on, and an older head that is not needed.

    Nothing is removed while a head cannot be read: who mends it needs its parts.
    """
    parts = set(directory.glob(part(directory, "*").name))
    if not parts and not (directory / OLDER).exists():
        return
    try:
        basis = _basis(directory / CURRENT)
        if not basis.parts and (directory / PREVIOUS).exists():
            (directory / OLDER).unlink(missing_ok=True)
        used = [basis, *(_basis(directory / name) for name in (PREVIOUS, OLDER))]
    except CheckpointError:
        return
    for path in parts - {part(directory, digest) for one in used for digest in one.parts}:
        path.unlink(missing_ok=True)


def _basis(path: Path) -> Basis:
    return from_text(path, read_facts(path))[0] if path.exists() else Basis()
