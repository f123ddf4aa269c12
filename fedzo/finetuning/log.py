"""The log of a run on a module: all values that it was told. It is the run's checkpoint and audit.

    a step: lr, values (MeZO: 2)      8 bytes a number: 28 KB for 1,000 steps of MeZO, whatever d

With the module as it was at the start, the method and the seed, the log leads to the same
parameters, bit for bit, on any engine (ZerothOrder.replay). Files: safetensors with a digest.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch

from fedzo.config import Scalar
from fedzo.errors import CheckpointError
from fedzo.estimation.view import View
from fedzo.records.storage import require_place
from fedzo.records.tensor_file import octets, read_tensors, write_tensors

_FORMAT, _NEXT = 1, "next_lr"
_AT_ONCE = 1 << 20
"""Bytes of a fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a log belongs to: method, settings, seed, the tensors and where they began."""

    method: str
    settings: dict[str, Scalar]
    seed: int
    names: list[str]
    sizes: list[int]
    start: int


@dataclass(slots=True)
class Log:
    """Steps with the values that they were told.

    group: the optimizer's, whose lr is that of the next step; a scheduler may have set it.
    """

    origin: Origin
    lrs: list[float] = field(default_factory=list)
    told: list[list[float]] = field(default_factory=list)
    group: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.lrs)

    def __iter__(self) -> Iterator[tuple[float, list[float]]]:
        return iter(zip(self.lrs, self.told, strict=True))

    def first(self, steps: int) -> "Log":
        """Return the log of the first steps."""
        return Log(self.origin, self.lrs[:steps], self.told[:steps])

    def begins_with(self, other: "Log") -> bool:
        """Return whether the first steps are those of another log."""
        own = self.first(len(other))
        return repr((own.lrs, own.told)) == repr((other.lrs, other.told))  # NaN is NaN

    def add(self, lr: float, told: list[float]) -> None:
        """Write down one step."""
        self.lrs.append(lr)
        self.told.append(told)

    def save(self, path: str | Path) -> None:
        """Write the log; whoever reads meanwhile sees the old file or the new one.

        Raises ConfigError where there is no such folder, StorageError or OSError where the system
        does not let us.
        """
        require_place(Path(path))
        flat = [value for step in self.told for value in step]
        tensors = {
            "lr": torch.tensor(self.lrs, dtype=torch.float64),
            "values": torch.tensor(flat, dtype=torch.float64),
            "counts": torch.tensor([len(step) for step in self.told], dtype=torch.int32),
        }
        if "lr" in self.group:
            tensors[_NEXT] = torch.tensor(float(self.group["lr"]), dtype=torch.float64)
        write_tensors(Path(path), tensors, json.dumps({"format": _FORMAT, **asdict(self.origin)}))

    @classmethod
    def load(cls, path: str | Path) -> "Log":
        """Read a log. Raises CheckpointError for a file that is missing, damaged or no log."""
        tensors, facts = read_tensors(Path(path))
        told = json.loads(facts)
        group = {"lr": float(tensors.pop(_NEXT))} if _NEXT in tensors else {}
        if told.pop("format", None) != _FORMAT or tensors.keys() != {"lr", "values", "counts"}:
            raise CheckpointError(f"{path} is no log of a run on a module in format {_FORMAT}")
        values = tensors["values"].tolist()
        ends = [0, *accumulate(tensors["counts"].tolist())]
        steps = [values[a:b] for a, b in pairwise(ends)]
        return cls(Origin(**told), tensors["lr"].tolist(), steps, group)


def fingerprint(view: View) -> int:
    """Return a number that two modules share when all bits of their tensors are the same.

    The sum of the bytes of each tensor, times their places, mod 2^62: a check against mistakes.
    """
    total = 0
    for number, tensor in enumerate(view.tensors):
        whole = octets(tensor)
        places = torch.arange(1, min(_AT_ONCE, len(whole)) + 1, device=whole.device)
        for start in range(0, len(whole), _AT_ONCE):
            part = whole[start : start + _AT_ONCE].to(torch.int64)
            total += (2 * (number + start) + 1) * int(part.mul_(places[: len(part)]).sum())
    return total % (1 << 62)
