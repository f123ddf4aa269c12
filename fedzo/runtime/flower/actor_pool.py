"""Flower's pool of Ray actors, in which one that hangs or has died makes room for another.

Flower itself waits for an actor as long as it takes, so that a simulation with one that hangs never
ends, and goes on giving messages to one whose process is gone.
"""

import time
from collections.abc import Callable
from threading import Event
from typing import Any

import ray
from flwr.app import Context, Message
from ray.exceptions import OutOfMemoryError, RayActorError

LOOK_S = 0.2
"""Seconds between two looks at whether anybody still waits."""
START_S = 120.0
TOO_LATE = "no answer in time"


class ReplacingPool:
    """A pool whose actors have until `deadline` for a message, as that is when they are given it.

    made: what makes Flower's own pool, of the arguments that are left. deadline: returns a time of
    time.monotonic(). ended: set when the simulation is to end, and nobody waits any more.
    """

    def __init__(
        self,
        made: Callable[..., Any],
        *,
        deadline: Callable[[], float],
        ended: Event,
        **arguments: Any,
    ) -> None:
        self._flowers = made(**arguments)
        self._deadline, self._ended = deadline, ended
        self._running: set[Any] = set()
        self._at_work: dict[Any, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._flowers, name)

    def submit(self, actor_fn: Callable[..., Any], job: tuple[Any, ...]) -> Any:
        """Give a message to an idle actor, once it runs; return the future of its answer.

        Raises TimeoutError for a message of which nobody wants the answer any more.
        """
        actor = self._flowers.pool.pop()
        if actor not in self._running:
            self._has_come(actor.__ray_ready__.remote(), time.monotonic() + START_S)
            self._running.add(actor)
        if time.monotonic() > self._deadline():
            self._flowers.pool.append(actor)
            raise TimeoutError(TOO_LATE)
        future = actor_fn(actor, *job)
        self._at_work[future] = actor
        return future

    def fetch_result_and_return_actor_to_pool(self, future: Any) -> tuple[Message, Context]:
        """Return what an actor has answered; raises TimeoutError where it takes too long."""
        if not self._has_come(future, self._deadline()):
            raise TimeoutError(TOO_LATE)
        _, message, context = ray.get(future)
        self.add_actor_back_to_pool(future)
        return message, context

    def add_actor_back_to_pool(self, future: Any) -> None:
        """Let an actor have further messages, or another in its place where it hangs or is gone."""
        actor = self._at_work.pop(future)
        if _is_lost(future):
            self._running.discard(actor)
            ray.kill(actor)
            if self._ended.is_set():
                return
            actor = self._flowers.create_actor_fn()
        self._flowers.pool.append(actor)

    def _has_come(self, future: Any, end: float) -> bool:
        """Wait for a future until a time, and no longer than the simulation goes on."""
        while True:
            left = end - time.monotonic()
            if ray.wait([future], timeout=max(0.0, min(LOOK_S, left)))[0]:
                return True
            if left <= 0 or self._ended.is_set():
                return False


def _is_lost(future: Any) -> bool:
    """Return whether what was asked of an actor has not ended, or has ended with its process."""
    if not ray.wait([future], timeout=0)[0]:
        return True
    try:
        ray.get(future)
    except (RayActorError, OutOfMemoryError):
        return True
    except Exception:  # the app's own: the actor goes on
        return False
    return False
