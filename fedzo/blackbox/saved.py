"""A search in one file: tensors in safetensors, facts in JSON, a digest over both; no pickle."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedzo.blackbox.evaluations import Evaluations
from fedzo.errors import CheckpointError
from fedzo.records.checkpoint import Checkpoint, flatten_state, restore_state
from fedzo.records.storage import replacing
from fedzo.records.tensor_file import read_tensors, write_tensors

VERSION, READ = 5, (1, 2, 3, 4, 5)
StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Points that a method has proposed together; open: it has not learned from them."""

    first: int = 0
    size: int = 0
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """All of a search but its table of points and its method's state."""

    space: dict[str, Any]
    method: str
    budget: int | None
    seed: int
    parallel: int
    asked: int
    best: int
    extra: int
    reason: str
    ended: str
    batch: Batch
    constrained: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """The points of a file, what became of them, and the parts of the method's state."""

    points: NDArray[np.float64]
    values: NDArray[np.float64]
    status: NDArray[np.int64]
    parts: Checkpoint

    def state(self, template: StateT) -> StateT:
        """Return the method's state; `template` is any state of that method."""
        return restore_state(template, self.parts)


def write_search(path: Path, saved: Saved, table: Evaluations, state: object) -> None:
    """Write a search to a file, whole or not at all."""
    parts = flatten_state(state)
    tensors = {
        "table.points": torch.from_numpy(table.points),
        "table.values": torch.from_numpy(table.values),
        "table.status": torch.from_numpy(table.status),
        **parts.tensors,
    }
    facts = {"version": VERSION, "search": dataclasses.asdict(saved), "state": dict(parts.facts)}
    with replacing(path) as fresh:
        write_tensors(fresh, tensors, json.dumps(facts))


def read_search(path: Path) -> tuple[Saved, Table]:
    """Read a search; raises CheckpointError where there is none."""
    tensors, text = read_tensors(path)
    try:
        facts = json.loads(text)
        if facts["version"] not in READ:
            raise CheckpointError(
                f"{path} is of version {facts['version']}, this fedzo reads versions {READ}"
            )
        search = facts["search"]
        if otherwise := _searched_otherwise(facts["version"], search):
            raise CheckpointError(
                f"{path} was saved by an earlier release, whose {otherwise}; begin again"
            )
        saved = Saved(**{**search, "batch": Batch(**search["batch"])})
        points, values, status = (
            tensors[f"table.{name}"].numpy() for name in ("points", "values", "status")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} holds no saved search; give a file of Optimizer.save"
        ) from error
    return saved, Table(points, values, status, Checkpoint(tensors, facts["state"]))


def _searched_otherwise(version: int, search: dict[str, Any]) -> str:
    """Return by what an earlier version would go on at other points; empty where it would not."""
    if version < 5 and str(search["method"]).startswith("auto"):
        return "auto looked along no line"
    cma = str(search["method"]).startswith("cma")
    return "cma did not ask the start" if version < 4 and cma else ""
