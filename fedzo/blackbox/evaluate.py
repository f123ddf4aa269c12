"""Evaluations of a batch: one after the other, in threads, in processes, or on Ray.

Answers come in the order of the points, so what is done with them does not depend on who was first.
A function that raises has failed at that point alone.
"""

import contextlib
import copy
import math
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from fedzo.blackbox.told import as_values, require_whole
from fedzo.errors import ConfigError, RunError
from fedzo.failure import failure_of
from fedzo.objectives.objective import Objective

Workers = Literal["threads", "processes", "ray"]
Function = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A value, or why there is none: a failure, or a violation of the constraints."""

    value: float
    reason: str = ""
    violation: float = 0.0


Evaluator = Callable[[Any], list[Answer]]


@contextlib.contextmanager
def make_evaluator(
    f: Function | Objective, *, workers: int, run_in: Workers, batched: bool
) -> Iterator[Evaluator]:
    """Give what evaluates batches of points, and end its workers afterwards.

    Raises ConfigError for workers that cannot be had.
    """
    if run_in not in get_args(Workers):
        raise ConfigError(f"run_in={run_in!r} must be one of {', '.join(get_args(Workers))}")
    require_whole("workers", workers, 1)
    together = batched or (isinstance(f, Objective) and workers == 1)
    if isinstance(f, Objective) and not together:
        f = _OnePoint(f)
    if together and workers > 1:
        raise ConfigError(
            f"workers={workers} has no effect where all points of a batch are evaluated at once;"
            " leave it out, or give a function of one point"
        )
    if together and run_in != "threads":
        raise ConfigError(
            f"run_in={run_in} is for functions of one point, and here all points of a batch are"
            " evaluated at once; leave it out"
        )
    if workers == 1 and run_in == "threads":
        yield lambda points: _all_at_once(f, points) if together else _each(f, points)
    elif run_in == "ray":
        yield from _on_ray(f, workers)
    else:
        yield from _in_pool(f, workers, run_in)


@dataclass(frozen=True, slots=True)
class _OnePoint:
    """An objective that is asked one point at a time, by several workers."""

    objective: Objective

    def __call__(self, point: Any) -> Any:
        return self.objective.value(torch.as_tensor(np.array(point)).unsqueeze(0))[0]


def answer(f: Function, point: Any) -> Answer:
    """Return what a function says of a point."""
    try:
        value = f(point)
    except BaseException as error:
        return Answer(math.nan, failure_of(error))
    told = as_values([_plain(value)], 1)[0]
    return Answer(math.nan, f"the value is {value!r:.40}") if told is None else Answer(told)


def _plain(value: Any) -> Any:
    """Return a tensor without its gradient, and anything else as it is."""
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _each(f: Any, points: Any) -> list[Answer]:
    return [answer(f, own(point)) for point in points]


def own(point: Any) -> Any:
    """Return a point for a function to keep and change: an array, a dict or a list."""
    return np.copy(point) if isinstance(point, np.ndarray) else copy.copy(point)


def _all_at_once(f: Any, points: Any) -> list[Answer]:
    try:
        if isinstance(f, Objective):
            values = f.value(torch.as_tensor(np.array(points)))
        else:
            values = f(own(points) if isinstance(points, np.ndarray) else [*map(own, points)])
    except BaseException as error:
        return [Answer(math.nan, failure_of(error))] * len(points)
    many = hasattr(values, "__iter__") and getattr(values, "ndim", 1) > 0
    if not many and len(points) > 1:
        raise ConfigError(
            f"f has returned {values!r:.40} for {len(points)} points; with batched=True it gets all"
            " points of a batch and returns a value for each"
        )
    told = as_values(list(_plain(values)) if many else _plain(values), len(points))
    return [Answer(math.nan, "no finite value") if v is None else Answer(v) for v in told]


_DIED = (
    "a worker process has died while it evaluated one of {} points; see what f does there, or"
    " evaluate in threads"
)
_TASK: list[Function] = []
"""What a worker process evaluates; set when it starts, as functions need not be importable."""


def _prepare(f: Function) -> None:
    torch.set_num_threads(1)
    _TASK[:] = [f]


def _answer_task(point: Any) -> Answer:
    return answer(_TASK[0], point)


def _in_pool(f: Any, workers: int, run_in: Workers) -> Iterator[Evaluator]:
    """Give an evaluator on a pool; a process that dies takes the search with it."""
    pool: Executor
    if run_in == "threads":
        pool, task = ThreadPoolExecutor(workers), lambda point: _each(f, [point])[0]
    else:
        fork = "fork" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("fork" if fork else "spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=_prepare, initargs=(f,))
        task = _answer_task

    def evaluate(points: Any) -> list[Answer]:
        try:
            return list(pool.map(task, points))
        except BrokenExecutor as error:
            raise RunError(_DIED.format(len(points))) from error

    with pool:
        yield evaluate


def _on_ray(f: Any, workers: int) -> Iterator[Evaluator]:
    """Give an evaluator on Ray, that of this process or one of our own."""
    import ray

    from fedzo.runtime.engine_configs import RayConfig
    from fedzo.runtime.ray.actors import start_ray

    own = start_ray(RayConfig(cluster_cpus=workers))
    try:
        task, function = ray.remote(num_cpus=1, max_retries=0)(answer), ray.put(f)

        def evaluate(points: Any) -> list[Answer]:
            found: list[Answer] = []
            for first in range(0, len(points), workers):
                some = points[first : first + workers]
                try:
                    found += ray.get([task.remote(function, point) for point in some])
                except ray.exceptions.WorkerCrashedError as error:
                    raise RunError(_DIED.format(len(some))) from error
            return found

        yield evaluate
    finally:
        if own:
            ray.shutdown()
