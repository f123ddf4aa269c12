"""Training a task in several processes on Ray, which exchange the values of a step.

    process 0: this one, which looks, writes and tells;   others: actors that take the same steps

They meet in an actor: each brings its numbers and gets all of them (fedzo.finetuning.parallel), so
no process listens on a port of its own, and a process that ends is seen by the others.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray.exceptions import RayError

from fedzo.errors import ObjectiveError, RunError
from fedzo.finetuning.parallel import Parallel
from fedzo.runtime.engine_configs import RayConfig
from fedzo.runtime.ray.actors import START_S, reason_of, start_ray
from scenarios.finetune.stepping import Before, Stepping
from scenarios.finetune.trainers import Finetuning

_LAST_WORDS_S = 5.0


class Meeting:
    """Where processes meet."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._begin()

    def _begin(self) -> None:
        self._brought: dict[int, list[float]] = {}
        self._all: asyncio.Future[list[list[float]]] = asyncio.Future()

    async def gather(self, rank: int, numbers: list[float]) -> list[list[float]]:
        """Return what all processes have brought, when the last one has come."""
        self._brought[rank], complete = numbers, self._all
        if len(self._brought) == self._size:
            complete.set_result([self._brought[i] for i in range(self._size)])
            self._begin()
        return await complete


class RayGroup:
    """The processes of a meeting. ends: of processes that end only when something is wrong."""

    def __init__(self, meeting: Any, rank: int, size: int, ends: Sequence[Any] = ()) -> None:
        self.rank, self.size = rank, size
        self._meeting, self._ends = meeting, list(ends)

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        reply = self._meeting.gather.remote(self.rank, list(numbers))
        waiting = [reply, *self._ends]
        while True:
            [first], _ = ray.wait(waiting, num_returns=1)
            if first is not reply:
                _result(first)
                waiting.remove(first)
                continue
            found: list[list[float]] = _result(reply)
            return found

    def raise_reasons(self) -> None:
        """Raise why another process has ended, where one has or does so now."""
        ended, _ = ray.wait(self._ends, num_returns=len(self._ends), timeout=_LAST_WORDS_S)
        for end in ended:
            _result(end)


def _result(reference: Any) -> Any:
    """Return what a process has given; raises RunError where it has ended in an error."""
    try:
        return ray.get(reference)
    except RayError as error:
        said = f"a process that trains with this one ended: {reason_of(error)}"
        raise RunError(said) from error


class Helper:
    """Takes the steps of a run in a process of its own, without looking at anything."""

    def __init__(self, config: Finetuning, threads: int) -> None:
        torch.set_num_threads(threads)
        self._config = config

    def ready(self) -> None:
        """Say that the process is up."""

    def run(self, meeting: Any, rank: int, before: Before | None) -> None:
        """Take part until the run has spent its forwards."""
        config = self._config
        group = RayGroup(meeting, rank, config.workers)
        stepping = Stepping(config, Parallel(group, data=config.data_parallel))
        if before is not None:
            stepping.return_to(before)
        while stepping.forwards < config.forwards:
            stepping.advance()


def _await(actors: Sequence[Any]) -> None:
    """Wait for the processes; raises RunError where the cluster has no room for them."""
    try:
        ray.get([actor.ready.remote() for actor in actors], timeout=START_S)
    except RayError as error:
        raise RunError(
            f"{len(actors)} Ray actors of a CPU each did not start within {START_S:g} s"
            f" ({reason_of(error)}); take fewer workers"
        ) from error


@contextmanager
def working_together(config: Finetuning, before: Before | None) -> Iterator[Parallel]:
    """Start the other processes of a run, and yield how they share.

    before: what the run has done. Raises RunError where Ray does not start, or has no room.
    """
    owns_ray = start_ray(RayConfig(address=config.address, cluster_cpus=config.workers))
    actors: list[Any] = []
    try:
        meeting: Any = ray.remote(num_cpus=0)(Meeting).remote(config.workers)
        kind: Any = ray.remote(num_cpus=1)(Helper)
        actors = [kind.remote(config, torch.get_num_threads()) for _ in range(config.workers - 1)]
        _await(actors)
        ends = [actor.run.remote(meeting, i + 1, before) for i, actor in enumerate(actors)]
        group = RayGroup(meeting, 0, config.workers, ends)
        try:
            yield Parallel(group, data=config.data_parallel)
        except ObjectiveError:
            group.raise_reasons()
            raise
    finally:
        for actor in actors:
            ray.kill(actor)
        if owns_ray:
            ray.shutdown()
