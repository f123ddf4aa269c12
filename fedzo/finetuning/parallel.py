"""One training in several processes, which exchange the values of a step and nothing else.

    process r = p D + d asks the places p, p + P, p + 2P ... of a step on share d of its batch;
    value of a place = mean over d;  then all processes take the same step

DistZO2, 2025 (arXiv 2507.03211): perturbation parallelism (P), data parallelism (D) and both. Every
process has the whole module and draws the directions from their keys, so what is sent is a number a
place, 16 bytes for a step of MeZO, whatever d. With D = 1 the parameters are, bit for bit, those
of one process; with more, values differ by rounding. Differs from the paper: any number of places a
step, and each process takes the mean of all values itself, in one order.

    torch.distributed.init_process_group("gloo")         # under torchrun --nproc-per-node 2
    optimizer = fedzo.ZerothOrder(model, lr=1e-4, parallel=Parallel(TorchGroup()))
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch

from fedzo.config import require
from fedzo.errors import ConfigError, FedzoWarning, ObjectiveError, RunError


@runtime_checkable
class Group(Protocol):
    """Processes that meet: `gather` returns what each of them has brought, by rank."""

    rank: int
    size: int

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Bring as many numbers as the others do, wait for them, and return all of them."""
        ...


class TorchGroup:
    """The processes of torch.distributed, as torchrun starts them.

    Raises ConfigError where no process group has been made.
    """

    def __init__(self) -> None:
        from torch import distributed  # for who has several processes

        if not (distributed.is_available() and distributed.is_initialized()):
            raise ConfigError(
                'there is no process group; call torch.distributed.init_process_group("gloo") in'
                " every process, started by torchrun"
            )
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        self._all_gather = distributed.all_gather

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        own = torch.tensor(numbers, dtype=torch.float64, device=self._device)
        found = [torch.empty_like(own) for _ in range(self.size)]
        try:
            self._all_gather(found, own)
        except RuntimeError as error:
            raise RunError(f"a process of the group has gone: {error}") from error
        return [row.tolist() for row in found]


class Parallel:
    """How the places of a step and its batch are shared by the processes of a group.

    data: how many processes share a batch; the others share places. Each of them is given its own
    share of every batch by its closure, shares of one size, and the closure returns its mean. sent:
    numbers that this process has sent. most: places that were shared at once. Raises ConfigError
    for a number of processes that `data` does not divide.
    """

    def __init__(self, group: Group, *, data: int = 1) -> None:
        require(data >= 1, "data", data, "at least 1")
        require(group.size % data == 0, "data", data, f"a divisor of {group.size} processes")
        self.group, self.data = group, data
        self.perturbations = group.size // data
        self.perturbation, self.shard = divmod(group.rank, data)
        self.sent = self.most = 0

    def values(
        self, count: int, ask: Callable[[Sequence[int]], Sequence[float]], *, width: int = 1
    ) -> list[float]:
        """Return the values of `count` places, asking this process for its own of them.

        ask: returns `width` values a place, one after another. An error of `ask` is raised here,
        and as ObjectiveError in the other processes.
        """
        self.most = max(self.most, count)
        length = -(-count // self.perturbations) * width
        own, mine = [0.0] * (length + 1), range(self.perturbation, count, self.perturbations)
        try:
            found = ask(mine) if mine else []
        except Exception:
            self._gather([1.0, *own[1:]])
            raise
        own[1 : 1 + len(found)] = found
        heard = self._gather(own)
        failed = [rank for rank, row in enumerate(heard) if row[0]]
        if failed:
            raise ObjectiveError(f"process {failed[0]} of {self.group.size} could not ask the loss")
        return [
            self._mean(heard, place % self.perturbations, place // self.perturbations * width + i)
            for place in range(count)
            for i in range(width)
        ]

    def warn_of_idle(self) -> None:
        """Say, in the first process, where a step has fewer places than there are processes."""
        idle = self.perturbations - self.most
        if self.group.rank == 0 and idle > 0:
            warnings.warn(
                f"{self.perturbations} processes share the places of a step, which asks at most"
                f" {self.most} at a time: {idle} of them have nothing to do; take more directions"
                " (num_directions), or let processes share the batch (data)",
                FedzoWarning,
                stacklevel=3,
            )

    def require_same(self, start: str) -> None:
        """Raise ConfigError where a process begins with something else than the first one."""
        digest = hashlib.blake2b(start.encode(), digest_size=6).digest()
        heard = self._gather([float(int.from_bytes(digest))])
        others = [rank for rank, row in enumerate(heard) if row != heard[0]]
        if others:
            raise ConfigError(
                f"process {others[0]} begins with other parameters, lr, method, settings or seed"
                " than process 0; make the module from the same seed, or load the same file, and"
                " give the same arguments in every process"
            )

    def _gather(self, numbers: Sequence[float]) -> list[list[float]]:
        self.sent += len(numbers)
        return self.group.gather(numbers)

    def _mean(self, heard: list[list[float]], perturbation: int, column: int) -> float:
        rows = heard[perturbation * self.data : (perturbation + 1) * self.data]
        return sum(row[1 + column] for row in rows) / self.data
