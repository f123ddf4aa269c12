"""The work of a node on one message, in a thread that can be left behind.

Threads are used again: torch takes two milliseconds to differentiate in one that it has not seen.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

_IDLE_S = 5.0
"""A thread without work ends after so long."""


_Works = queue.SimpleQueue[tuple[Callable[[], None], Callable[[], None]]]


class Threads:
    """Daemon threads that do one thing after the other; another one where all are at work."""

    def __init__(self) -> None:
        self._idle: list[_Works] = []
        self._lock = threading.Lock()

    def do(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """Let a thread do `work`, and `then` once it is free for more; neither raises anything."""
        with self._lock:
            works = self._idle.pop() if self._idle else None
        if works is None:
            works = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(works,), daemon=True).start()
        works.put((work, then))

    def _serve(self, works: _Works) -> None:
        while True:
            try:
                work, then = works.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if works not in self._idle:  # it has just been chosen, and gets work
                        continue
                    self._idle.remove(works)
                return
            work()
            with self._lock:
                self._idle.append(works)
            then()
            del work, then  # and what they hold


class NodeTask:
    """Does `work` in one of the threads, once the node's task `after` has ended, for `then`.

    `then` gets the answer, and after how many seconds. What `work` raises is raised in whoever
    waits.
    """

    def __init__(
        self,
        work: Callable[[], Any],
        threads: Threads,
        *,
        after: "NodeTask | None",
        then: Callable[[Any, float], None],
    ) -> None:
        self._work, self._after, self._then = work, after, then
        self._error: BaseException | None = None
        self._begun = time.monotonic()
        self._over = threading.Event()
        threads.do(self._do, self._over.set)

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._over.is_set()

    def wait(self, most: float | None) -> bool:
        """Wait until it has had so many seconds since it began; return whether it is over."""
        left = None if most is None else max(0.0, self._begun + most - time.monotonic())
        self._over.wait(left)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self.ended

    def _do(self) -> None:
        try:
            if self._after is not None:
                self._after._over.wait()
            answer = self._work()
            self._then(answer, time.monotonic() - self._begun)
        except BaseException as error:  # raised again where somebody waits
            self._error = error
        finally:
            self._after = None
