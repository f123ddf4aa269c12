"""Where the trials of a sweep run: one after the other here, in processes, or on Ray.

A trial is a function of its job, so it gives the same anywhere. Workers are started once a sweep.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from fedzo.runtime.engine_configs import RayConfig
from scenarios.runs.trials import Job, Trial, run_trial

RunTrials = Callable[[Sequence[Job]], Iterator[Trial]]
"""Yields trials as they end."""
LOCAL = "local"


@contextmanager
def workers(processes: int, ray: str) -> Iterator[RunTrials]:
    """Run trials on so many processes; `ray`: on Ray, "local" or an address, else "".

    Whatever was started ends with the block, or with this process.
    """
    if ray:
        with _on_ray(processes, ray) as run:
            yield run
    elif processes == 1:
        yield lambda jobs: map(run_trial, jobs)
    else:
        with _pool(processes) as pool:
            yield lambda jobs: _ended(pool, jobs)


def _ended(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> Iterator[Trial]:
    for done in as_completed([pool.submit(run_trial, job) for job in jobs]):
        yield done.result()


def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=_end_with,
        initargs=(os.getpid(),),
    )


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _on_ray(processes: int, where: str) -> Iterator[RunTrials]:
    """Run each trial as a task with a CPU of its own; of a local Ray there are `processes`."""
    import ray

    from fedzo.runtime.ray.actors import start_ray

    local = where == LOCAL
    own = start_ray(RayConfig(cluster_cpus=processes) if local else RayConfig(address=where))
    try:
        task = ray.remote(num_cpus=1, max_retries=0)(run_trial)

        def run(jobs: Sequence[Job]) -> Iterator[Trial]:
            waiting = [task.remote(job) for job in jobs]
            while waiting:
                done, waiting = ray.wait(waiting)
                yield _told(done[0])

        yield run
    finally:
        if own:
            ray.shutdown()


def _told(reference: Any) -> Trial:
    """Return a trial; what a task raised is raised as it would be here."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    from fedzo.errors import FedzoError, RunError
    from fedzo.runtime.ray.actors import reason_of

    try:
        trial: Trial = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, FedzoError):
            raise error.cause from None
        raise RunError(f"a trial on Ray has failed: {reason_of(error)}") from error
    except RayError as error:
        raise RunError(f"a trial on Ray was lost: {reason_of(error)}") from error
    return trial
